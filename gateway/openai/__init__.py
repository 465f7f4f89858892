"""The OpenAI-style API: one module per noun of a request's way from bytes to bytes."""
