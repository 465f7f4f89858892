"""What `auto` means without a trained router: quality first, because nothing is known about the small model's answers.

`auto` and `auto-quality` take the large model, `auto-cost` the small one; where that one is not eligible, the other.
"""

from gateway.routing.catalogue import Target
from gateway.routing.decision import Decision, Reason
from gateway.routing.eligibility import Eligibility

POLICY = "rule-1"


def decide_by_rule(target: Target, eligibility: Eligibility) -> Decision:
    """The rule's choice; deterministic, so its propensity is 1."""
    preferred = "small" if target is Target.COST else "large"
    eligible = eligibility.eligible
    only = preferred not in eligible
    return Decision(
        model=eligible[0] if only else preferred,
        reason=Reason.ONLY_ELIGIBLE if only else Reason.NO_ROUTER,
        policy=POLICY,
        eligible=eligible,
        ineligible=eligibility.reasons,
        target=target.value,
    )
