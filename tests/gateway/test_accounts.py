"""API keys: who is let in, for how long a check is trusted, and what happens while the database is away."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.authenticator import Authenticator, InvalidKey, KeysUnavailable, Principal, is_loopback
from gateway.accounts.keys import create_key, generate_key, hash_key, is_well_formed
from gateway.secret import Secret
from gateway.storage.database import Database
from gateway.storage.keys import SqlKeyRepository
from gateway.storage.protocols import StorageUnavailable
from gateway.storage.records import KeyRecord

PEPPER = Secret("pepper")


class Clock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Flaky(SqlKeyRepository):
    """The real repository behind a switch, counting its look-ups."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.away = False
        self.look_ups = 0

    async def by_hash(self, digest: str) -> KeyRecord | None:
        self.look_ups += 1
        if self.away:
            raise StorageUnavailable("away")
        return await super().by_hash(digest)

    async def any_created(self) -> bool:
        self.look_ups += 1
        if self.away:
            raise StorageUnavailable("away")
        return await super().any_created()


def guard(repository: Flaky, clock: Clock, host: str = "127.0.0.1") -> Authenticator:
    return Authenticator(repository, host=host, pepper=PEPPER, cache_s=4.0, outage_grace_s=600.0, clock=clock)


async def test_only_a_key_made_for_it_may_operate_once_there_are_keys(database: Database) -> None:
    repository = Flaky(database)
    assert (await guard(repository, Clock()).authenticate(None)).may_operate  # one person's, on their own machine
    plain = await create_key(repository, "service", PEPPER)
    admin = await create_key(repository, "operator", PEPPER, router_admin=True)
    may = {}
    for key in (plain, admin):
        principal = await guard(repository, Clock()).authenticate(f"Bearer {key.secret.reveal()}")
        may[principal.name] = principal.may_operate
    assert may == {"service": False, "operator": True}


async def test_a_created_key_is_let_in_under_its_name(database: Database) -> None:
    repository = Flaky(database)
    key = await create_key(repository, " batch jobs ", PEPPER)
    principal = await guard(repository, Clock()).authenticate(f"Bearer {key.secret.reveal()}")
    assert principal == Principal(key.record.id, "batch jobs")
    assert principal.tenant == key.record.id.hex


async def test_the_secret_is_nowhere_in_the_database(sqlite_database_url: str) -> None:
    database = Database(sqlite_database_url)
    key = await create_key(SqlKeyRepository(database), "a", PEPPER)
    await database.close()
    path = sqlite_database_url.removeprefix("sqlite+aiosqlite:///")
    content = b"".join(file.read_bytes() for file in Path(path).parent.glob(Path(path).name + "*"))
    secret = key.secret.reveal().encode()
    assert key.record.prefix.encode() in content
    assert secret not in content
    assert secret[11:30] not in content
    assert secret.decode() not in repr(key)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer sk-short",
        "Basic dXNlcjpwdw==",
        "Bearer " + "sk-" + "A" * 43,
        "Bearer " + "sk-" + "A" * 100_000,
        "Bearer sk-" + "é" * 43,
        "Bearer sk-" + "A" * 42 + "\n",
    ],
)
async def test_anything_else_is_refused(sqlite_database_url: str, header: str | None) -> None:
    database = Database(sqlite_database_url)
    repository = Flaky(database)
    await create_key(repository, "a", PEPPER)
    with pytest.raises(InvalidKey, match=r"sk-|keys create"):
        await guard(repository, Clock()).authenticate(header)
    await database.close()


async def test_another_pepper_voids_every_key(database: Database) -> None:
    repository = Flaky(database)
    key = await create_key(repository, "a", Secret("old"))
    with pytest.raises(InvalidKey):
        await guard(repository, Clock()).authenticate(f"Bearer {key.secret.reveal()}")


async def test_a_revocation_takes_effect_within_five_seconds(database: Database) -> None:
    repository, clock = Flaky(database), Clock()
    key = await create_key(repository, "a", PEPPER)
    authenticator = guard(repository, clock)
    header = f"bearer  {key.secret.reveal()} "
    await authenticator.authenticate(header)
    look_ups = repository.look_ups
    await authenticator.authenticate(header)
    assert repository.look_ups == look_ups, "a key that was just checked must not cost a query"
    await repository.revoke(key.record.prefix)
    clock.now_s += 5.0
    with pytest.raises(InvalidKey):
        await authenticator.authenticate(header)


async def test_known_keys_survive_an_outage_for_a_bounded_time(database: Database) -> None:
    repository, clock = Flaky(database), Clock()
    known = await create_key(repository, "known", PEPPER)
    fresh = await create_key(repository, "never seen", PEPPER)
    revoked = await create_key(repository, "revoked", PEPPER)
    authenticator = guard(repository, clock, host="0.0.0.0")  # noqa: S104
    await repository.revoke(revoked.record.prefix)
    await authenticator.authenticate(f"Bearer {known.secret.reveal()}")
    with pytest.raises(InvalidKey):
        await authenticator.authenticate(f"Bearer {revoked.secret.reveal()}")
    repository.away = True
    clock.now_s += 599
    assert (await authenticator.authenticate(f"Bearer {known.secret.reveal()}")).name == "known"
    with pytest.raises(KeysUnavailable):
        await authenticator.authenticate(f"Bearer {fresh.secret.reveal()}")
    with pytest.raises(InvalidKey):
        await authenticator.authenticate(f"Bearer {revoked.secret.reveal()}")
    clock.now_s += 2
    with pytest.raises(KeysUnavailable):
        await authenticator.authenticate(f"Bearer {known.secret.reveal()}")
    repository.away = False
    assert (await authenticator.authenticate(f"Bearer {known.secret.reveal()}")).name == "known"


async def test_loopback_needs_no_key_until_one_is_created(database: Database) -> None:
    repository, clock = Flaky(database), Clock()
    authenticator = guard(repository, clock)
    anonymous = await authenticator.authenticate(None)
    assert anonymous == Principal(None, "anonymous")
    key = await create_key(repository, "first", PEPPER)
    clock.now_s += 5
    with pytest.raises(InvalidKey):
        await authenticator.authenticate(None)
    await repository.revoke(key.record.prefix)
    clock.now_s += 5
    with pytest.raises(InvalidKey):
        await authenticator.authenticate(None)


async def test_beyond_loopback_a_key_is_always_needed(database: Database) -> None:
    with pytest.raises(InvalidKey):
        await guard(Flaky(database), Clock(), host="0.0.0.0").authenticate(None)  # noqa: S104


async def test_nobody_is_let_in_unasked_when_the_database_was_never_there(database: Database) -> None:
    repository = Flaky(database)
    repository.away = True
    with pytest.raises(KeysUnavailable):
        await guard(repository, Clock()).authenticate(None)


async def test_guessing_keys_does_not_push_out_the_good_ones(sqlite_database_url: str) -> None:
    database = Database(sqlite_database_url)
    repository, clock = Flaky(database), Clock()
    key = await create_key(repository, "a", PEPPER)
    authenticator = guard(repository, clock)
    await authenticator.authenticate(f"Bearer {key.secret.reveal()}")
    for _ in range(50):
        with pytest.raises(InvalidKey):
            await authenticator.authenticate(f"Bearer {generate_key('x', PEPPER).secret.reveal()}")
    repository.away = True
    assert (await authenticator.authenticate(f"Bearer {key.secret.reveal()}")).name == "a"
    assert len(authenticator._checked) == 1
    await database.close()


@pytest.mark.parametrize("name", ["", "   ", "line\nbreak", "\0"])
async def test_a_key_needs_a_readable_name(sqlite_database_url: str, name: str) -> None:
    database = Database(sqlite_database_url)
    with pytest.raises(ValueError, match="name"):
        await create_key(SqlKeyRepository(database), name, PEPPER)
    await database.close()


@given(st.integers(1, 20))
def test_keys_are_well_formed_and_different(n: int) -> None:
    keys = [generate_key("x", PEPPER) for _ in range(n)]
    assert len({key.secret.reveal() for key in keys}) == n
    for key in keys:
        assert is_well_formed(key.secret.reveal())
        assert re.fullmatch(r"[0-9a-f]{64}", key.record.hash)
        assert key.record.hash == hash_key(key.secret.reveal(), PEPPER) != hash_key(key.secret.reveal(), Secret(""))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.168.1.5", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_only_loopback_addresses_are_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_digests_are_compared_in_constant_time() -> None:
    source = (Path(__file__).parents[2] / "gateway/accounts/authenticator.py").read_text()
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    assert "hmac.compare_digest" in calls
    compared = [ast.unparse(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if "hash" in text or "digest" in text]
