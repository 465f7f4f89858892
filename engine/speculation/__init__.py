"""Tokens proposed before the model was asked (proposer)."""
