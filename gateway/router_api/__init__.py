"""The endpoints under `/v1/router`: decide without answering, tell outcomes, evaluate, train and promote."""
