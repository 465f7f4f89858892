"""Decoders: what a checkpoint says (config), its arithmetic (decoder, layers, rope) and how it comes from disk
(loading)."""
