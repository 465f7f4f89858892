"""From a request to the model that answers it: names, eligibility, the decision and its evidence, what it cost."""
