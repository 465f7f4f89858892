"""Who may use the gateway: API keys, and the rule for when one is needed."""
