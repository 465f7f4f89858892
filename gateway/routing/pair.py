"""The served pair as routers know it: by the fingerprints of its two checkpoints."""

from dataclasses import dataclass
from pathlib import Path

from gateway.routing.catalogue import Catalogue
from gateway.settings import Settings
from router_model.artefact import RouterArtefact


class NoCheckpoint(ValueError):
    """The folder of a model holds none, so that no server could serve it."""


@dataclass(frozen=True, slots=True)
class ServedPair:
    """small, large: fingerprints, as `engine.loaded_model.fingerprint` gives them."""

    small: str
    large: str

    @classmethod
    def of_catalogue(cls, catalogue: Catalogue) -> "ServedPair":
        """The pair that this process serves."""
        return cls(catalogue["small"].info.fingerprint, catalogue["large"].info.fingerprint)

    @classmethod
    def of_settings(cls, settings: Settings) -> "ServedPair":
        """The pair that a server with these settings serves. No model is loaded: its files are read once, half a second
        per gigabyte. NoCheckpoint."""
        return cls(fingerprint_of(settings.small_path), fingerprint_of(settings.large_path))

    def load(self, folder: Path) -> RouterArtefact:
        """The router in a folder. ModelMismatch: it is of another pair; ArtefactError as for `RouterArtefact.load`."""
        return RouterArtefact.load(folder, small_model=self.small, large_model=self.large)


def fingerprint_of(folder: Path) -> str:
    """The engine's fingerprint of a checkpoint. NoCheckpoint."""
    if not (folder / "config.json").is_file():
        raise NoCheckpoint(f"there is no model in {folder}: name a checkpoint folder")
    from engine.loaded_model import fingerprint

    return fingerprint(folder)
