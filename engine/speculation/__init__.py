"""Tokens proposed before the model was asked: who proposes (proposer), and what the grammar already knows (forced)."""
