"""The tool library: hundreds of tools and record types in a compact text format (`library/README.md`), read as entries.

The catalogue is what the bundled models know by heart; the library is where they learn to read definitions. Whole files
are kept out of training: their tools are the ones that the model card calls unseen.

    python -m bundled_models.library FILE...    checks files and shows a few sentences of each
"""

import random
import re
import sys
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bundled_models.catalogue import (
    SLOT,
    CatalogueError,
    Entry,
    Parameter,
    Phrasing,
    Split,
    check,
    clauses,
    parse,
    pool_names,
)
from bundled_models.values import Values

FOLDER = Path(__file__).parent / "library"
HEAD = re.compile(r"(?P<mark>%\s*)?(?P<names>\w[\w.]*(?:\s*\|\s*\w[\w.]*)*)")
PARAMETER = re.compile(
    r"-\s*(?P<names>[\w.]+(?:\s*\|\s*\w+)*)(?P<optional>\?)?\s*:\s*(?P<type>[^:]+?)\s*(?::\s*(?P<about>.*))?"
)
KINDS = {"int": "integer", "num": "number", "str": "string", "bool": "boolean"}


def _parameter(line: str, where: str) -> Parameter:
    """`- base | side? : int 2-300 : Length of the base`. Raises CatalogueError."""
    found = PARAMETER.fullmatch(line)
    if found is None:
        raise CatalogueError(f"{where}: {line!r} is not `- name[?] : type : description`.")
    names = [n.strip() for n in found["names"].split("|")]
    kind, _, rest = found["type"].partition(" ")
    rest = rest.strip()
    is_list = kind.startswith("[") and found["type"].endswith("]")
    if is_list:
        kind, rest = kind.strip("[]"), rest.removesuffix("]")
    enum = pool = bounds = choices = None
    if kind == "enum":
        spoken = [choice.partition("=") for choice in rest.split(";")]
        enum = {v.strip(): [s.strip() for s in said.split(",")] if said else [v.strip()] for v, _, said in spoken}
        if len(enum) < 2:
            raise CatalogueError(f"{where}: {line!r} needs two values at least, `enum a; b`.")
    elif kind in ("int", "num"):
        low, dash, high = rest.lstrip("-").partition("-")
        try:
            bounds = (float(rest[: len(rest) - len(rest.lstrip("-"))] + low), float(high)) if dash else None
        except ValueError:
            bounds = None
        if bounds is None or bounds[0] > bounds[1]:
            raise CatalogueError(f"{where}: {line!r} needs a range, `{kind} 1-20`.")
    elif kind == "str" and rest.startswith("in "):
        choices = tuple(v.strip() for v in rest[3:].split(";"))
        if len(choices) < 4:
            raise CatalogueError(f"{where}: {line!r} needs four values at least, `str in a; b; c; d`.")
    elif kind == "str":
        pool = rest
        if pool not in pool_names():
            raise CatalogueError(f"{where}: pool {pool!r} is not in pools.json; use one of it, or `str in a; b; c; d`.")
    elif kind != "bool":
        raise CatalogueError(
            f"{where}: {line!r}: the type is int, num, bool, enum, str, [int], [num], [str] or [enum]."
        )
    type_ = "string" if kind == "enum" else KINDS[kind]
    return Parameter(
        names[0], "array" if is_list else type_, found["optional"] is None, (found["about"] or "").strip(),
        pool, bounds, enum, items=type_, choices=choices, others=tuple(names[1:]),
    )  # fmt: skip


def _entry(lines: list[str], domain: str, where: str) -> tuple[bool, Entry]:
    """(is a record type, the entry). Raises CatalogueError with the tool and the line."""
    head = HEAD.fullmatch(lines[0])
    if head is None:
        raise CatalogueError(f"{where}: {lines[0]!r} is not a name, or several with `|` between them.")
    names = [n.strip() for n in head["names"].split("|")]
    where = f"{where}, {names[0]}"
    descriptions, parameters, phrasings = list[str](), list[Parameter](), list[Phrasing]()
    for line in lines[1:]:
        match line[0]:
            case ":":
                descriptions.append(line[1:].strip())
            case "-":
                parameters.append(_parameter(line, where))
            case ">":
                phrasings.append(parse(line[1:].strip()))
            case _:
                raise CatalogueError(f"{where}: {line!r} begins with none of `:`, `-`, `>`.")
    if not descriptions or len(phrasings) < 3:
        raise CatalogueError(f"{where}: give a description (`:`) and three phrasings (`>`) at least.")
    everything = tuple(parameters)
    for phrasing in phrasings:
        check(phrasing, everything, where)
    splits: tuple[Split, ...] = ("train", "router", "held")
    return bool(head["mark"]), Entry(
        names[0], domain, dict.fromkeys(splits, descriptions), everything, dict.fromkeys(splits, phrasings), (),
        *clauses(phrasings), others=tuple(names[1:]),
    )  # fmt: skip


def read(path: Path) -> Iterator[tuple[bool, Entry]]:
    """The entries of a file. Raises CatalogueError with file, tool and line."""
    domain, block = path.stem, list[str]()
    for number, raw in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        line = raw.strip()
        if line.startswith("@"):
            domain = line[1:].strip()
        elif line.startswith("#"):
            continue
        elif line:
            block.append(line)
        elif block:
            yield _entry(block, domain, f"{path.name}:{number - len(block)}")
            block = []


@cache
def load(split: Split, folder: Path = FOLDER) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """(tools, record types) of a split. Raises CatalogueError.

    held: the files called `held_*`; router: every twelfth entry of the others, by a hash of its name; train: the rest.
    """
    tools, records = list[Entry](), list[Entry]()
    for path in sorted(folder.glob("*.txt")):
        is_held = path.stem.startswith("held_")
        for is_record, entry in read(path):
            of: Split = "held" if is_held else "train" if zlib.crc32(entry.name.encode()) % 12 else "router"
            if of == split:
                (records if is_record else tools).append(entry)
    return tuple(tools), tuple(records)


def _shown(entry: Entry, values: Values) -> Iterator[str]:
    """A sentence of each phrasing, all its parameters given."""
    for phrasing in entry.phrasings["train"]:
        drawn = {p.name: values.draw(p, phrasing.values_of(p.name)) for p in entry.parameters}
        pieces = (p for p in phrasing.pieces if p.param is None or str(p.value) == str(drawn[p.param][0]).lower())
        text = "".join(p.text for p in pieces)
        for slot in SLOT.findall(text):
            text = text.replace(f"{{{slot}}}", drawn[slot][1])
        yield text


def main() -> None:
    """Check the files given and show what they say."""
    values = Values(random.Random(0), "train")
    for name in sys.argv[1:]:
        entries = [entry for _, entry in read(Path(name))]
        for index, entry in enumerate(entries):
            lines = [f"    {line}" for line in _shown(entry, values)]
            if index % 15 == 0:
                print(entry.name, *lines, sep="\n")
        phrasings = sum(len(e.phrasings["train"]) for e in entries)
        print(f"{name}: {len(entries)} entries, {phrasings} phrasings, all well-formed")


if __name__ == "__main__":
    main()
