"""The learned router: a prompt's features in, a decision between the small and the large model out."""
