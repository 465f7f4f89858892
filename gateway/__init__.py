"""HTTP in, HTTP out: the OpenAI-style API, routing, accounts, storage, telemetry and reports around the engine."""
