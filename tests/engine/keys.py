"""Content keys as a request would compute them."""

from engine.blocks import extend_keys, root_key

Scope = tuple[str, str]
"""A tenant's salt, and a model."""
HOME: Scope = ("", "small")
SCOPES: list[Scope] = [HOME, ("tenant", "small"), ("", "large"), ("tenant", "large")]


def root_of(scope: Scope = HOME) -> bytes:
    """The root key of a tenant's prompts on a model."""
    salt, model = scope
    return root_key(salt=salt, fingerprint=model, kv_format="tokens")


ROOT = root_of()


def keys_of(tokens: list[int], block_size: int, root: bytes = ROOT) -> list[bytes]:
    """The keys of all full blocks of `tokens`."""
    keys: list[bytes] = []
    extend_keys(keys, root, tokens, len(tokens) // block_size, block_size)
    return keys
