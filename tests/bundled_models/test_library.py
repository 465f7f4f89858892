"""The tool library: its files are well-formed, its format says what is wrong, and what is held out stays out."""

from pathlib import Path

import jsonschema
import pytest

from bundled_models import library
from bundled_models.catalogue import CatalogueError, Split, nested, object_schema
from bundled_models.generator import UNSEEN, Generator

TOOL = """@ geometry

triangle_area | geometry.area
: Area of a triangle
- base | width : int 2-300 : Length of the base
- unit? : enum cm=cm,centimetres; m : Unit
- exact? : bool : Keep all decimals
- point.x? : num -5-5 : Place
> how big is a triangle with base {base}[ in {unit}][exact=true:, exactly]
> triangle, base {base}[ at x {point.x}]
> {base} wide triangle, area please
"""


def test_an_entry_is_read_with_its_names_types_and_sentences(tmp_path: Path) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text(TOOL)
    ((is_record, entry),) = library.read(path)
    assert (is_record, entry.name, entry.others, entry.domain) == (
        False,
        "triangle_area",
        ("geometry.area",),
        "geometry",
    )
    assert [(p.name, p.type, p.required) for p in entry.parameters] == [
        ("base", "integer", True),
        ("unit", "string", False),
        ("exact", "boolean", False),
        ("point.x", "number", False),
    ]
    assert entry.parameters[1].enum == {"cm": ["cm", "centimetres"], "m": ["m"]}
    assert entry.parameters[3].range == (-5, 5)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("int 2-300", "int", "needs a range"),
        ("int 2-300", "str nowhere", "not in pools.json"),
        ("int 2-300", "str in a; b", "four values"),
        ("int 2-300", "float 1-2", "the type is"),
        ("enum cm=cm,centimetres; m", "enum cm", "two values"),
        ("{base} wide triangle, area please", "a triangle, area please", "leave out the required"),
        ("[ in {unit}]", " in {unit}", "always says the optional"),
        ("{base} wide triangle", "{base} wide {colour}", "which is no parameter"),
        ("> {base} wide triangle, area please\n", "", "three phrasings"),
        (": Area of a triangle", "* Area", "begins with none of"),
        ("triangle_area |", "triangle area |", "is not a name"),
        ("- base | width : int", "- base = int", "is not `- name"),
    ],
)
def test_a_broken_entry_is_refused_with_its_place(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "shapes.txt"
    path.write_text(TOOL.replace(old, new))
    with pytest.raises(CatalogueError, match=r"shapes\.txt:3.*" + complaint):
        list(library.read(path))


def names(split: Split) -> set[str]:
    return {name for entries in library.load(split) for e in entries for name in (e.name, *e.others)}


def test_no_name_of_a_held_tool_is_trained_on() -> None:
    assert all(names(split) for split in ("train", "router", "held"))  # type: ignore[arg-type]
    assert not names("held") & (names("train") | names("router"))


def offered(generator: Generator) -> set[str]:
    return {t["function"]["name"] for _ in range(300) for t in generator.group(1)[0].tools}


def test_unseen_tools_are_offered_in_no_training_prompt() -> None:
    trained, unseen = offered(Generator(1, "train")), offered(Generator(2, "held", sources=UNSEEN))
    assert trained
    assert unseen
    assert not trained & unseen


def test_every_sentence_of_the_library_yields_valid_arguments() -> None:
    generator = Generator(4)
    for split in ("train", "router", "held"):
        for entry in library.load(split)[0]:  # type: ignore[arg-type]
            schema = object_schema(entry.parameters, {})
            for phrasing in entry.phrasings["train"]:
                _, values, _ = generator._say(phrasing, entry.parameters)
                jsonschema.validate(nested(values), schema)
