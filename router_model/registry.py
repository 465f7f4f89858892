"""The routers of a deployment: a folder with each under its hash, and which of them is in force, with history."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from router_model.artefact import ArtefactError, RouterArtefact

STATE_FILE = "current.json"
LOCK_FILE = ".lock"
_HASH = re.compile(r"[0-9a-f]{64}")


class UnknownArtefact(LookupError):
    """No router of that hash is in the registry; the message says which are."""


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """A router coming into force. hash: None is none, so that whatever is configured decides. is_rollback: by going
    back, not on its own merits. note: why, such as the comparison.
    """

    hash: str | None
    at: datetime
    is_rollback: bool = False
    note: str = ""


class RegistryState(msgspec.Struct, frozen=True, kw_only=True):
    """What `current.json` holds. history: oldest first; the last one is in force."""

    history: tuple[Promotion, ...] = ()


class Registry:
    """Routers under `folder`, which is made when the first is added.

        <folder>/<hash>/router.json, router.safetensors     never changed once they are whole
        <folder>/current.json                                replaced as a whole

    A reader sees each file as it was or as it is, never half of it; writers exclude each other by a lock on the folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self._folder

    def add(self, artefact: RouterArtefact) -> str:
        """Store a router and return its hash. One that is there already stays as it is, and is put right if damaged."""
        name = artefact.hash
        target = self._folder / name
        with self._locked():
            half = self._folder / f".new-{secrets.token_hex(8)}"
            try:
                artefact.save(half)
                for path in half.iterdir():
                    _flush(path)
                if not target.is_dir():
                    half.rename(target)
                else:
                    _put_right(target, half)
            finally:
                shutil.rmtree(half, ignore_errors=True)
        return name

    def list(self) -> tuple[str, ...]:
        """The hashes of all routers, in order of the hash."""
        if not self._folder.is_dir():
            return ()
        return tuple(sorted(path.name for path in self._folder.iterdir() if _HASH.fullmatch(path.name)))

    def load(self, name: str, *, small_model: str | None = None, large_model: str | None = None) -> RouterArtefact:
        """The router of a hash, or of the beginning of one; the models as for `RouterArtefact.load`.

        UnknownArtefact; ArtefactError: damaged, or of another version or pair.
        """
        full = self.find(name)
        artefact = RouterArtefact.load(self._folder / full, small_model=small_model, large_model=large_model)
        if artefact.hash != full:
            raise ArtefactError(f"{self._folder / full} is not the router of that hash: add it again")
        return artefact

    def find(self, name: str) -> str:
        """The full hash that begins with `name`. UnknownArtefact: there is none, or more than one."""
        there = self.list()
        found = [one for one in there if name and one.startswith(name)]
        if not there:
            raise UnknownArtefact(f"no router begins with '{name[:64]}': there is none in the registry")
        if len(found) != 1:
            known = ", ".join(one[:12] for one in there)
            many = "more than one router begins" if found else "no router begins"
            raise UnknownArtefact(f"{many} with '{name[:64]}': use one of {known}")
        return found[0]

    @property
    def history(self) -> tuple[Promotion, ...]:
        """What was in force, oldest first. ArtefactError: `current.json` is damaged."""
        path = self._folder / STATE_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=RegistryState).history
        except FileNotFoundError:
            return ()
        except msgspec.DecodeError as error:
            raise ArtefactError(f"{path} cannot be read ({error}): promote a router again after removing it") from error

    def current(self) -> str | None:
        """The hash of the router in force; None: none was promoted yet."""
        history = self.history
        return history[-1].hash if history else None

    def promote(self, name: str, *, note: str = "", at: datetime | None = None) -> str:
        """Put a router in force and return its full hash; one that is in force already leaves the history as it is.

        at: None is now. UnknownArtefact.
        """
        full = self.find(name)
        with self._locked():
            history = self.history
            if not history or history[-1].hash != full:
                self._write((*history, Promotion(hash=full, at=at or datetime.now(UTC), note=note)))
        return full

    def rollback(self, *, note: str = "", at: datetime | None = None) -> str | None:
        """Put the router in force that was before the present one; returns its hash, None for none.

        Going back again goes on further back: promotions that were taken back do not count. UnknownArtefact: nothing
        is in force, so there is nothing to take back.
        """
        with self._locked():
            history = self.history
            standing = _standing(history)
            if not standing:
                raise UnknownArtefact("no router is in force by promotion, so there is none to go back from")
            before = standing[-2] if len(standing) > 1 else None
            back = Promotion(hash=before, at=at or datetime.now(UTC), is_rollback=True, note=note)
            self._write((*history, back))
        return before

    def _write(self, history: tuple[Promotion, ...]) -> None:
        data = msgspec.json.format(msgspec.json.encode(RegistryState(history=history)), indent=2) + b"\n"
        half = self._folder / f".new-{secrets.token_hex(8)}"
        try:
            with half.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            half.replace(self._folder / STATE_FILE)
        finally:
            half.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl  # not there on Windows, where nothing is promoted

        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _standing(history: tuple[Promotion, ...]) -> list[str | None]:
    """What was put in force and not taken back, oldest first, no two neighbours equal; the last one is in force.

    A history may name a router twice in a row: promoting what was in force once added to it.
    """
    standing: list[str | None] = []
    for one in history:
        if one.is_rollback:
            while standing and standing[-1] != one.hash:
                standing.pop()
        elif not standing or standing[-1] != one.hash:
            standing.append(one.hash)
    return standing


def _put_right(target: Path, intact: Path) -> None:
    """Replace the files of `target` that differ from those of `intact`, each as a whole.

    Both folders are of one hash, which fixes every byte: a reader finds a damaged router until all files are replaced,
    and never a mixture that passes for one.
    """
    for path in intact.iterdir():
        there = target / path.name
        if not there.is_file() or there.read_bytes() != path.read_bytes():
            path.replace(there)


def _flush(path: Path) -> None:
    """Have the file's content on the disk before its name is: a crash in between must not leave it empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
