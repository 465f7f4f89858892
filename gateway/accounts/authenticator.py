"""Checks the Authorization header of a request.

A checked key is trusted for `cache_s` seconds, which bounds both the load on the database and the delay of a
revocation. While the database is away, keys that were good when last checked go on working for `outage_grace_s`.
"""

import hmac
import ipaddress
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from gateway.accounts.keys import hash_key, is_well_formed
from gateway.secret import Secret
from gateway.storage.protocols import KeyRepository, StorageUnavailable
from gateway.storage.records import KeyRecord

_CACHED_KEYS = 4096


class AccountError(Exception):
    """Base of the reasons for which a request is not let in; `code` is stable and snake_case."""

    code = "account_error"


class InvalidKey(AccountError):
    """401: no key where one is needed, or one that is malformed, unknown or revoked."""

    code = "invalid_api_key"


class KeysUnavailable(AccountError):
    """503: the key cannot be checked now."""

    code = "keys_unavailable"


class Principal(msgspec.Struct, frozen=True):
    """On whose behalf a request runs. key_id None: anonymous, which exists on loopback only.

    router_admin: whether its key says so.
    """

    key_id: uuid.UUID | None
    name: str
    router_admin: bool = False

    @property
    def tenant(self) -> str:
        """Separates one account's prefix cache from another's."""
        return "anonymous" if self.key_id is None else self.key_id.hex

    @property
    def may_operate(self) -> bool:
        """Whether it may change how everybody's requests are routed, and read what was measured over all keys.

        A server without keys is one person's, on their own machine; once there are keys, one has to be made for it.
        """
        return self.key_id is None or self.router_admin


class _Checked(msgspec.Struct):
    key: KeyRecord
    at_s: float


class Authenticator:
    """Decides who a request comes from. Use from one event loop."""

    def __init__(
        self,
        repository: KeyRepository,
        *,
        host: str,
        pepper: Secret,
        cache_s: float = 4.0,
        outage_grace_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """host: the address that the server is bound to."""
        self._repository, self._pepper, self._clock = repository, pepper, clock
        self._cache_s, self._outage_grace_s = cache_s, outage_grace_s
        self._on_loopback = is_loopback(host)
        self._checked: OrderedDict[str, _Checked] = OrderedDict()
        self._key_created = False
        self._no_key_at_s: float | None = None

    async def authenticate(self, authorization: str | None) -> Principal:
        """The principal of an Authorization header, None meaning that there was none.

        Raises InvalidKey or KeysUnavailable.
        """
        if self._on_loopback and not await self._any_key_created():
            return Principal(None, "anonymous")
        scheme, _, secret = (authorization or "").strip().partition(" ")
        secret = secret.strip()
        if not authorization:
            raise InvalidKey("this server needs an API key: send 'Authorization: Bearer sk-…'")
        if scheme.lower() != "bearer" or not is_well_formed(secret):
            raise InvalidKey("the API key is malformed: send 'Authorization: Bearer sk-…' with a whole key")
        key = await self._look_up(hash_key(secret, self._pepper))
        if key is None or key.revoked_at is not None:
            raise InvalidKey("the API key is unknown or revoked: `pointsman keys create` makes a new one")
        return Principal(key.id, key.name, key.router_admin)

    async def _look_up(self, digest: str) -> KeyRecord | None:
        now = self._clock()
        known = self._checked.get(digest)
        if known is not None and now - known.at_s < self._cache_s:
            self._checked.move_to_end(digest)
            return known.key
        try:
            key = await self._repository.by_hash(digest)
        except StorageUnavailable as error:
            if known is not None and now - known.at_s < self._outage_grace_s:
                return known.key
            raise KeysUnavailable("API keys cannot be checked at the moment: try again in a few seconds") from error
        # The index found it by value; comparing again in constant time leaves its timing out of the matter.
        if key is None or not hmac.compare_digest(key.hash, digest):
            self._checked.pop(digest, None)
            return None
        self._checked[digest] = _Checked(key, now)
        self._checked.move_to_end(digest)
        if len(self._checked) > _CACHED_KEYS:
            self._checked.popitem(last=False)
        return key

    async def _any_key_created(self) -> bool:
        """Keys are never deleted, so a yes lasts for ever and only a no has to be asked for again."""
        if self._key_created:
            return True
        now = self._clock()
        if self._no_key_at_s is not None and now - self._no_key_at_s < self._cache_s:
            return False
        try:
            self._key_created = await self._repository.any_created()
        except StorageUnavailable as error:
            if self._no_key_at_s is not None and now - self._no_key_at_s < self._outage_grace_s:
                return False
            raise KeysUnavailable("it cannot be checked whether this server needs a key: try again soon") from error
        self._no_key_at_s = None if self._key_created else now
        return self._key_created


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`. Names other than localhost count as not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
