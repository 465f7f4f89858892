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
    assert registry.folder_of(hashes[1][:10]) == registry.folder / hashes[1]
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


def test_a_reader_never_sees_half_a_change_and_no_writer_is_lost(tmp_path: Path, routers: list[RouterArtefact]) -> None:
    registry = Registry(tmp_path)
    hashes = [registry.add(one) for one in routers]
    seen: list[str | None] = []
    is_done = threading.Event()

    def read() -> None:
        while not is_done.is_set():
            seen.append(Registry(tmp_path).current())

    def write(name: str) -> None:
        for _ in range(15):
            Registry(tmp_path).promote(name)

    reader, writers = threading.Thread(target=read), [threading.Thread(target=write, args=(h,)) for h in hashes]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    is_done.set()
    reader.join()
    assert set(seen) <= {None, *hashes}
    assert len(registry.history) == 45
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
    registry.folder_of(one).rename(tmp_path / "away")
    registry.folder_of(two).rename(tmp_path / one)  # a whole router, under another's name
    with pytest.raises(ArtefactError, match="not the router of that hash"):
        registry.load(one)
    (tmp_path / STATE_FILE).write_text(json.dumps({"history": "none"}))
    with pytest.raises(ArtefactError, match=STATE_FILE):
        registry.current()
