"""The models that are served, and what a request's `model` means."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.messages import ModelInfo


class UnknownModel(LookupError):
    """No model of that name is served; the message lists the names."""


class Target(enum.StrEnum):
    """The names under which the router chooses, and what it then weighs: balance, quality first, cost first."""

    AUTO = "auto"
    QUALITY = "auto-quality"
    COST = "auto-cost"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """alias: the engine's name, `small` or `large`; id: the checkpoint folder's name, which clients see."""

    alias: str
    id: str
    info: ModelInfo

    @property
    def fingerprint(self) -> str:
        """`system_fingerprint`: changes when the checkpoint or its configuration does."""
        return f"pm-{self.info.fingerprint[:12]}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request's `model`: either a target for the router, or one model by name."""

    name: str
    target: Target | None = None
    model: ServedModel | None = None


class Catalogue:
    """The served models by alias and by id. Read-only after start."""

    def __init__(self, models: Iterable[ModelInfo]) -> None:
        infos = list(models)
        reserved = {info.name for info in infos} | {target.value for target in Target}
        folders = [Path(info.path).name for info in infos]
        # A folder's name serves as id unless it would be ambiguous, or mean another model or the router.
        self.models = tuple(
            ServedModel(
                info.name, name if folders.count(name) == 1 and name not in reserved - {info.name} else info.name, info
            )
            for info, name in zip(infos, folders, strict=True)
        )
        self._by_name = {model.id: model for model in self.models} | {model.alias: model for model in self.models}

    def __getitem__(self, alias: str) -> ServedModel:
        """The model of that alias. Raises KeyError."""
        return self._by_name[alias]

    @property
    def names(self) -> list[str]:
        """Everything that `model` may say."""
        return [*(target.value for target in Target), *self._by_name]

    def resolve(self, name: str) -> Wanted:
        """What `name` means. Raises UnknownModel."""
        if name in set(Target):
            return Wanted(name, target=Target(name))
        try:
            return Wanted(name, model=self._by_name[name])
        except KeyError:
            known = ", ".join(self.names)
            raise UnknownModel(f"The model '{name[:128]}' does not exist; use one of {known}.") from None
