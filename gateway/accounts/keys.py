"""API keys: `sk-` and 32 random bytes. The secret is shown once; only its hash and its first characters are stored."""

import base64
import hashlib
import hmac
import os
import re

import msgspec

from gateway.secret import Secret
from gateway.storage.protocols import KeyRepository
from gateway.storage.records import KeyRecord

_FORM = re.compile(r"sk-[A-Za-z0-9_-]{43}")
_PREFIX_CHARACTERS = 11


class NewKey(msgspec.Struct, frozen=True):
    """A key at the one moment when its secret is known."""

    secret: Secret
    record: KeyRecord


def generate_key(name: str, pepper: Secret, *, router_admin: bool = False) -> NewKey:
    """A new key. Its 256 random bits need no slow hash: nobody can try them all."""
    secret = "sk-" + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    digest = hash_key(secret, pepper)
    record = KeyRecord(name=name, prefix=secret[:_PREFIX_CHARACTERS], hash=digest, router_admin=router_admin)
    return NewKey(Secret(secret), record)


def hash_key(secret: str, pepper: Secret) -> str:
    """HMAC-SHA-256 (RFC 2104) of the key under the pepper, as hex: without the pepper a stolen table proves nothing."""
    return hmac.new(pepper.reveal().encode(), secret.encode(), hashlib.sha256).hexdigest()


def is_well_formed(secret: str) -> bool:
    """Whether a string could be one of our keys; spares the database a look-up for what cannot."""
    return _FORM.fullmatch(secret) is not None


async def create_key(repository: KeyRepository, name: str, pepper: Secret, *, router_admin: bool = False) -> NewKey:
    """Make and store a key. router_admin: see `KeyRecord`.

    Raises ValueError for a name without visible characters, StorageUnavailable."""
    name = name.strip()
    if not name or not name.isprintable():
        raise ValueError("a key needs a name of visible characters, for example the service that will use it")
    key = generate_key(name, pepper, router_admin=router_admin)
    await repository.add(key.record)
    return key
