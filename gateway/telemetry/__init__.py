"""What can be seen from outside: one trace per request, and metrics. Never prompts, answers or keys."""
