"""What is kept: API keys, requests with their usage and timeline, and routing decisions."""
