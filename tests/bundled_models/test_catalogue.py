"""The catalogue files keep to their format."""

import json
import shutil
from pathlib import Path

import pytest

from bundled_models.catalogue import FOLDER, CatalogueError, load, parse
from bundled_models.values import PART


def test_twelve_domains_with_four_tools_and_a_schema_each() -> None:
    catalogue = load()
    domains = catalogue.domains()
    assert len(domains) == 12
    assert all(sum(t.domain == d for t in catalogue.tools) == 4 for d in domains)
    assert all(sum(s.domain == d for s in catalogue.schemas) == 1 for d in domains)


def test_no_phrasing_stands_in_two_splits() -> None:
    for entry in (*load().tools, *load().schemas):
        train, router, held = ({p.source for p in entry.phrasings[s]} for s in ("train", "router", "held"))
        assert not train & router
        assert not held & (train | router | set(entry.cores))


def test_pool_patterns_name_lists_that_exist() -> None:
    data = json.loads((FOLDER / "pools.json").read_text(encoding="utf-8"))
    for patterns in data["pools"].values():
        for pattern in patterns:
            for name, low, *_ in PART.findall(pattern):
                known = low or name in ("m", "M", "U") or name in data["lists"]
                assert known or (name[:2] in ("M_", "l_") and name[2:] in data["lists"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"pool": "city"', '"pool": "town"', "pool 'town'"),
        ('"type": "integer"', '"type": "whole"', "type 'whole'"),
        ("weather be like in {city}", "weather be like in {place}", "names ['place']"),
        ("is it going to rain in {city}[", "is it going to rain[ in {city}][", "can leave out the required 'city'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    shutil.copy(FOLDER / "pools.json", tmp_path)
    text = (FOLDER / "weather.json").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "weather.json").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(CatalogueError) as error:
        load(tmp_path)
    assert message in str(error.value)


def test_phrasings_are_cut_at_their_brackets() -> None:
    phrasing = parse("play {song}[ by {artist}][loud=true:, loudly]")
    assert [p.text for p in phrasing.pieces] == ["play {song}", " by {artist}", ", loudly"]
    assert phrasing.names == {"song", "artist", "loud"}
    assert phrasing.values_of("loud") == {"true"}
    assert phrasing.values_of("song") is None
