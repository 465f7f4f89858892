import json
import threading
from pathlib import Path

import pytest

from router_model.artefact import ArtefactError, ModelMismatch, RouterArtefact
from router_model.bundle import bundle
from router_model.registry import STATE_FILE, Registry, UnknownArtefact
from router_model.training import train
from tests.router_model.worlds import QUICK, make_outcomes


@pytest.fixture(scope="module")
def routers() -> list[RouterArtefact]:
    found = []
    for seed in range(3):
        outcomes = make_outcomes(120, with_state=True, seed=seed)
        found.append(bundle(train(outcomes, QUICK), outcomes, small_model="s", large_model="l"))
    return found


def test_what_is_added_can_be_loaded_by_the_beginning_of_its_hash(
    tmp_path: Path, routers: list[RouterArtefact]
) -> None:
    registry = Registry(tmp_path / "routers")
    assert registry.list() == ()
    assert registry.current() is None
    hashes = [registry.add(one) for one in routers]
    assert registry.add(routers[0]) == hashes[0]
    assert registry.list() == tuple(sorted(hashes))
    assert registry.load(hashes[1][:10], small_model="s").hash == hashes[1] == routers[1].hash
    assert registry.find(hashes[1][:10]) == hashes[1]
    with pytest.raises(ModelMismatch):
        registry.load(hashes[1], small_model="other")
    for name in ("", "zz"):
        with pytest.raises(UnknownArtefact, match=hashes[0][:12]):
            registry.find(name)


def test_promotions_are_a_history_that_can_be_gone_back_through(tmp_path: Path, routers: list[RouterArtefact]) -> None:
    registry = Registry(tmp_path)
    one, two, three = (registry.add(router) for router in routers)
    registry.promote(one)
    registry.promote(two[:12], note="better by 3 points")
    registry.promote(three)
    assert Registry(tmp_path).current() == three
    assert registry.rollback() == two
    assert registry.current() == two
    assert registry.rollback() == one
    registry.promote(three)
    assert registry.rollback() == one
    assert registry.rollback() is None
    assert registry.current() is None
    with pytest.raises(UnknownArtefact, match="none to go back from"):
        registry.rollback()
    assert [each.hash for each in registry.history] == [one, two, three, two, one, three, one, None]
    assert registry.history[1].note == "better by 3 points"
    with pytest.raises(UnknownArtefact):
        registry.promote("f" * 64)


def test_promoting_what_is_in_force_adds_nothing_to_go_back_through(
    tmp_path: Path, routers: list[RouterArtefact]
) -> None:
    registry = Registry(tmp_path)
    one, two = registry.add(routers[0]), registry.add(routers[1])
    for name in (one, two, two, two[:12]):
        registry.promote(name)
    assert [each.hash for each in registry.history] == [one, two]
    assert registry.rollback() == one
    registry.promote(one)
    assert registry.rollback() is None


def test_a_history_that_repeats_itself_goes_back_to_the_last_different_router(
    tmp_path: Path, routers: list[RouterArtefact]
) -> None:
    registry = Registry(tmp_path)
    one, two = registry.add(routers[0]), registry.add(routers[1])
    at = "2026-01-01T00:00:00Z"
    promoted = [{"hash": name, "at": at} for name in (one, one, two, two, two)]
    (tmp_path / STATE_FILE).write_text(json.dumps({"history": promoted}))
    assert registry.rollback() == one
    # One that went "back" to the very router that was in force.
    (tmp_path / STATE_FILE).write_text(
        json.dumps({"history": [*promoted, {"hash": two, "at": at, "is_rollback": True}]})
    )
    assert registry.rollback() == one
    assert registry.rollback() is None


@pytest.mark.parametrize("name", ["router.safetensors", "router.json"])
def test_adding_a_router_again_puts_a_damaged_copy_right(
    tmp_path: Path, routers: list[RouterArtefact], name: str
) -> None:
    registry = Registry(tmp_path)
    added = registry.add(routers[0])
    whole = (tmp_path / added / name).read_bytes()
    for damage in (b"", whole[:100], None):
        path = tmp_path / added / name
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(ArtefactError):
            registry.load(added)
        assert registry.add(routers[0]) == added
        assert registry.load(added).hash == added
        assert path.read_bytes() == whole
    stamps = [one.stat().st_mtime_ns for one in sorted((tmp_path / added).iterdir())]
    registry.add(routers[0])
    assert [one.stat().st_mtime_ns for one in sorted((tmp_path / added).iterdir())] == stamps
    assert not list(tmp_path.glob(".new-*"))


def test_a_reader_never_sees_half_a_change_and_no_writer_is_lost(tmp_path: Path, routers: list[RouterArtefact]) -> None:
    registry = Registry(tmp_path)
    registry.add(routers[0])
    hashes = [f"{i:064x}" for i in range(45)]
    for name in hashes:
        (tmp_path / name).mkdir()
    seen: list[str | None] = []
    is_done = threading.Event()

    def read() -> None:
        while not is_done.is_set():
            seen.append(Registry(tmp_path).current())

    def write(names: list[str]) -> None:
        for name in names:
            Registry(tmp_path).promote(name)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(hashes[i::3],)) for i in range(3)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    is_done.set()
    reader.join()
    assert set(seen) <= {None, *hashes}
    assert len(registry.history) == 45
    assert {one.hash for one in registry.history} == set(hashes)
    assert not list(tmp_path.glob(".new-*"))


def test_a_failed_add_leaves_nothing(
    tmp_path: Path, routers: list[RouterArtefact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: RouterArtefact, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise OSError("disk full")

    registry = Registry(tmp_path)
    monkeypatch.setattr(RouterArtefact, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        registry.add(routers[0])
    assert registry.list() == ()
    assert not list(tmp_path.glob(".new-*"))


def test_damage_is_named(tmp_path: Path, routers: list[RouterArtefact]) -> None:
    registry = Registry(tmp_path)
    one, two = registry.add(routers[0]), registry.add(routers[1])
    (tmp_path / one).rename(tmp_path / "away")
    (tmp_path / two).rename(tmp_path / one)  # a whole router, under another's name
    with pytest.raises(ArtefactError, match="not the router of that hash"):
        registry.load(one)
    (tmp_path / STATE_FILE).write_text(json.dumps({"history": "none"}))
    with pytest.raises(ArtefactError, match=STATE_FILE):
        registry.current()
