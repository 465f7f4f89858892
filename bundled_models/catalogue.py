"""The catalogue: the tools and extraction schemas that the bundled models are taught, read from JSON files."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parent / "catalogue"
ROUTER = Path(__file__).parent / "router_phrasings.json"  # the phrasings that neither model trains on
TYPES = ("string", "integer", "number", "boolean", "array")
Split = Literal["train", "router", "held"]
PIECE = re.compile(r"\[(?:(?P<param>[\w.]+)=(?P<value>[^:\]]*):)?(?P<text>[^\[\]]*)\]|\{(?P<slot>[\w.]+)\}")
SLOT = re.compile(r"\{([\w.]+)\}")


class CatalogueError(ValueError):
    """A catalogue file breaks the format of `catalogue/README.md`."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool, or one property of an extraction schema.

    A dot in the name is a level of nesting: `point.x`. items: the type of an array's items; choices: the values of a
    string that has no pool; others: names that mean the same.
    """

    name: str
    type: str
    required: bool
    description: str
    pool: str | None
    range: tuple[float, float] | None
    enum: dict[str, list[str]] | None
    items: str = "string"
    choices: tuple[str, ...] | None = None
    others: tuple[str, ...] = ()

    def json_schema(self) -> dict[str, Any]:
        """The JSON schema of the parameter's value."""
        schema: dict[str, Any] = {"type": self.items if self.type == "array" else self.type}
        if self.enum:
            schema["enum"] = list(self.enum)
        if self.type == "array":
            schema = {"type": "array", "items": schema}
        return schema | {"description": self.description}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"point.x": 1}` as `{"point": {"x": 1}}`."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        inner = found
        for step in path:
            inner = inner.setdefault(step, {})
        inner[last] = value
    return found


def object_schema(parameters: Sequence[Parameter], names: Mapping[str, str]) -> dict[str, Any]:
    """The JSON schema of an object of these parameters, called as `names` says where it does.

    A nested object is required if one of its members is.
    """
    schema: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for parameter in parameters:
        *path, last = names.get(parameter.name, parameter.name).split(".")
        inner = schema
        for step in path:
            if parameter.required and step not in inner["required"]:
                inner["required"].append(step)
            inner = inner["properties"].setdefault(step, {"type": "object", "properties": {}, "required": []})
        inner["properties"][last] = parameter.json_schema()
        if parameter.required:
            inner["required"].append(last)
    return schema


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a phrasing: `text` is written if `param` has `value` and every slot in it is given."""

    text: str
    optional: bool
    param: str | None = None
    value: str | None = None

    @property
    def slots(self) -> list[str]:
        """The parameters whose values stand in the text."""
        return SLOT.findall(self.text)

    @property
    def names(self) -> set[str]:
        """Every parameter that the piece depends on."""
        return {*self.slots, *([self.param] if self.param else [])}

    @property
    def is_sentence(self) -> bool:
        """True if the piece can only stand after the end of a sentence."""
        return self.text.startswith(("?", ".", "!")) or self.text.rstrip().endswith(".")


Clause = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Phrasing:
    """A sentence with slots, cut into the runs that are kept or dropped together."""

    source: str
    pieces: tuple[Piece, ...]

    @property
    def names(self) -> set[str]:
        """Every parameter that the phrasing can express."""
        return {n for p in self.pieces for n in [*p.slots, *([p.param] if p.param else [])]}

    def values_of(self, name: str) -> set[str] | None:
        """The values of `name` that the phrasing can express; None: any value."""
        found: set[str] = set()
        for piece in self.pieces:
            if piece.param == name:
                found.add(str(piece.value))
            elif name in piece.slots and piece.param is None:
                return None
        return found


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool (`phrasings` ask for it) or an extraction schema (`phrasings` are texts that state its object)."""

    name: str
    domain: str
    descriptions: dict[Split, list[str]]
    parameters: tuple[Parameter, ...]
    phrasings: dict[Split, list[Phrasing]]
    cores: tuple[str, ...]
    heads: dict[str, list[Clause]]
    tails: dict[str, list[Clause]]
    others: tuple[str, ...] = ()

    def compose(self, source: random.Random) -> Phrasing:
        """A training phrasing from parts: a core, then a clause of some training phrasing for each optional parameter.

        This multiplies a dozen phrasings into thousands, so that a clause is read by its words and not by its place.
        """
        core = source.choice(self.cores)
        names = [p.name for p in self.parameters if p.name in self.tails]
        source.shuffle(names)
        head: Clause = ()
        inner: list[Piece] = []
        sentences: list[Piece] = []
        for name in names:
            if not head and name in self.heads and source.random() < 0.12:
                head = source.choice(self.heads[name])
                continue
            clause = source.choice(self.tails[name])
            (sentences if clause[0].is_sentence else inner).extend(clause)
        stop = "." if core.endswith(".") else ""
        body = [*head, Piece(core.removesuffix("."), optional=False), *inner]
        return Phrasing(core, (*body, *([Piece(stop, optional=False)] if stop else []), *sentences))


def parse(source: str) -> Phrasing:
    """Cut a phrasing at its brackets."""
    pieces, at = [], 0
    for found in PIECE.finditer(source):
        if found["slot"] is not None:
            continue
        if found.start() > at:
            pieces.append(Piece(source[at : found.start()], optional=False))
        param = found["param"]
        pieces.append(Piece(found["text"], True, param, found["value"].strip() if param else None))
        at = found.end()
    if at < len(source):
        pieces.append(Piece(source[at:], optional=False))
    return Phrasing(source, tuple(pieces))


@cache
def pool_names(path: Path = FOLDER / "pools.json") -> frozenset[str]:
    """The names of the value pools."""
    return frozenset(json.loads(path.read_text(encoding="utf-8"))["pools"])


def clauses(phrasings: list[Phrasing]) -> tuple[dict[str, list[Clause]], dict[str, list[Clause]]]:
    """(clauses that can open a sentence, clauses that can follow one), by the one parameter that each states."""
    heads: dict[str, list[Clause]] = {}
    tails: dict[str, list[Clause]] = {}
    for phrasing in phrasings:
        runs: list[list[Piece]] = []
        for piece in phrasing.pieces:
            if runs and piece.optional and runs[-1][0].optional and runs[-1][0].names == piece.names:
                runs[-1].append(piece)
            else:
                runs.append([piece])
        for index, run in enumerate(runs):
            if not run[0].optional or len(run[0].names) != 1:
                continue
            name = next(iter(run[0].names))
            if not any(c.isalpha() for c in SLOT.sub("", run[0].text)):
                continue  # a bare value says only by its place what it is
            if all(p.text.startswith((" ", ",", ";", "?", ".")) for p in run):
                tails.setdefault(name, []).append(tuple(run))
            elif index == 0 and all(p.text.endswith(" ") for p in run):
                heads.setdefault(name, []).append(tuple(run))
    return heads, tails


def _parameter(data: dict[str, Any], where: str, pools: frozenset[str]) -> Parameter:
    kind, enum, pool = data["type"], data.get("enum"), data.get("pool")
    if kind not in TYPES:
        raise CatalogueError(f"{where}: type {kind!r} is none of {', '.join(TYPES)}.")
    if pool is not None and pool not in pools:
        raise CatalogueError(f"{where}: pool {pool!r} is not in pools.json.")
    if kind in ("string", "array") and not (pool or enum):
        raise CatalogueError(f"{where}: a {kind} needs a pool or an enum.")
    if kind in ("integer", "number") and "range" not in data:
        raise CatalogueError(f"{where}: a {kind} needs a range.")
    bounds = (data["range"][0], data["range"][1]) if "range" in data else None
    return Parameter(data["name"], kind, data["required"], data.get("description", ""), pool, bounds, enum)


def check(phrasing: Phrasing, parameters: tuple[Parameter, ...], where: str) -> None:
    """Raise CatalogueError for a phrasing that does not state what its parameters need."""
    names = {p.name for p in parameters}
    if strange := phrasing.names - names:
        raise CatalogueError(f"{where}: {phrasing.source!r} names {sorted(strange)}, which is no parameter.")
    if any(c in piece.text for piece in phrasing.pieces for c in "[]"):
        raise CatalogueError(f"{where}: {phrasing.source!r} has an unmatched bracket.")
    plain = {n for p in phrasing.pieces if not p.optional for n in p.slots}
    for parameter in parameters:
        said = phrasing.values_of(parameter.name)
        if parameter.required and parameter.name not in plain:
            both = said is not None and parameter.type == "boolean" and said == {"true", "false"}
            if not both and not (said and parameter.enum and said == set(parameter.enum)):
                raise CatalogueError(f"{where}: {phrasing.source!r} can leave out the required {parameter.name!r}.")
        if not parameter.required and parameter.name in plain:
            raise CatalogueError(f"{where}: {phrasing.source!r} always says the optional {parameter.name!r}.")
        if parameter.type == "boolean" and said is None:
            raise CatalogueError(f"{where}: {phrasing.source!r} has the boolean {parameter.name!r} in a slot.")


def _entry(
    data: dict[str, Any], domain: str, pools: frozenset[str], texts: str, chatty: list[str], kept: set[str]
) -> Entry:
    where = f"{domain}.json, {data['name']}"
    parameters = tuple(
        _parameter(p, f"{where}.{p['name']}", pools) for p in (data.get("parameters") or data["properties"])
    )
    about = data.get("descriptions") or {"train": [data["description"]], "held": [data["description"]]}
    sources = data[texts]
    if set(sources["train"]) & set(sources["held"]):
        raise CatalogueError(f"{where}: a phrasing stands in both train and held.")
    trained = [s for s in (*sources["train"], *chatty) if s not in set(sources["held"])]
    split = {
        "train": [parse(s) for s in trained if s not in kept],
        "router": [parse(s) for s in trained if s in kept] or [parse(s) for s in trained],
        "held": [parse(s) for s in sources["held"]],
    }
    for some in split.values():
        if not some:
            raise CatalogueError(f"{where}: no phrasings.")
        for phrasing in some:
            check(phrasing, parameters, where)
    descriptions: dict[Split, list[str]] = {"train": about["train"], "router": about["train"], "held": about["held"]}
    cores = tuple(sources.get("cores", ()))
    for core in cores:
        if core in sources["held"] or set(SLOT.findall(core)) != {p.name for p in parameters if p.required}:
            raise CatalogueError(f"{where}: the core {core!r} must name the required parameters and not stand in held.")
    phrasings: dict[Split, list[Phrasing]] = {"train": split["train"], "router": split["router"], "held": split["held"]}
    return Entry(data["name"], domain, descriptions, parameters, phrasings, cores, *clauses(split["train"]))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All tools and extraction schemas of all domains."""

    tools: tuple[Entry, ...]
    schemas: tuple[Entry, ...]

    def domains(self) -> list[str]:
        """The names of the domains, in the order of the files."""
        return list(dict.fromkeys(t.domain for t in self.tools))


@cache
def load(folder: Path = FOLDER) -> Catalogue:
    """Read and check every domain file. Raises CatalogueError with file, tool and sentence."""
    pools = pool_names(folder / "pools.json")
    router: dict[str, list[str]] = json.loads(ROUTER.read_text(encoding="utf-8"))
    tools: list[Entry] = []
    schemas: list[Entry] = []
    for path in sorted(folder.glob("*.json")):
        if path.name == "pools.json":
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        more = folder / "chatty" / path.name
        chatty: dict[str, list[str]] = json.loads(more.read_text(encoding="utf-8")) if more.exists() else {}
        for found, entries, texts in ((tools, data["tools"], "phrasings"), (schemas, data["extraction"], "texts")):
            for entry in entries:
                name = entry["name"]
                kept = set(router.get(name, []))
                found.append(_entry(entry, data["domain"], pools, texts, chatty.get(name, []), kept))
    for kind in (tools, schemas):
        names = [e.name for e in kind]
        if twice := {n for n in names if names.count(n) > 1}:
            raise CatalogueError(f"Two catalogue entries are called {sorted(twice)}.")
    return Catalogue(tuple(tools), tuple(schemas))
