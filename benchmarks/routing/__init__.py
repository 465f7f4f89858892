"""What routing adds to a request, and what it is worth on the project's own pair."""
