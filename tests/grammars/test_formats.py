"""Formats against validators that share no code with us: whatever is written in one, those accept."""

import json
import random
import re
from functools import cache

import idna
import jsonschema
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grammars import GrammarCompiler, JsonSchema, regex_syntax
from grammars.formats import ENFORCED
from grammars.regex import full_pattern
from tests.grammars.answers import draw
from tests.grammars.expressions import Sampler

PYTHON = jsonschema.Draft202012Validator.FORMAT_CHECKER

ORDINARY = {
    "date": ["2024-02-29", "1999-12-31", "0001-01-01"],
    "time": ["23:59:59Z", "08:30:06.283185+02:00"],
    "date-time": ["2024-02-29T00:00:00Z", "1963-06-19T08:30:06.28-08:00"],
    "duration": ["P4DT12H30M5S", "PT36H", "P2W", "P1Y"],
    "email": ["joe.bloggs@example.com", "te~st@example.co.uk", "a+b@x.io"],
    "hostname": ["www.example.com", "localhost", "a-b.c-d", "h0"],
    "ipv4": ["192.168.0.1", "0.0.0.1", "255.255.255.255"],
    "ipv6": ["::1", "12:34:56:78:9a:bc:de:f0", "::ffff:192.168.0.1", "fe80::a"],
    "uuid": ["2EB8AA08-aa98-11ea-b4aa-73b441d16380"],
    "uri": ["http://foo.bar/?baz=qux#quux", "mailto:a@b.c", "urn:isbn:1", "http://[::1]:80/a%20b", "file:///etc/fstab"],
    "uri-reference": ["/abc", "//foo.bar/?baz", "#frag", "", "a/b:c", "?q"],
    "iri": ["http://ƒøø.ßår/?∂éœ=πîx#πîüx"],
    "iri-reference": ["/âππ", "#ƒrägmênt"],
    "uri-template": ["http://example.com/dictionary/{term:1}/{term}", "{?q*}"],
    "json-pointer": ["", "/foo/bar~0/baz~1/%a", "/"],
    "relative-json-pointer": ["0#", "1/foo"],
    "idn-email": ["joe@example.com", "用户@例子.公司", "jürgen.müller@straße.de"],
    "idn-hostname": ["www.example.com", "例子.公司", "bücher.example", "пример.рф", "a-é", "テスト", "한국.kr"],
    "regex": ["", "^[a-z0-9_-]+$", r"\d{3}-\d{4}", "a|b$", r"^(foo|(?:b[^a]r)+?)*\.txt$", r"\bword\b", r"[\w.]{2,15}"],
}
WRONG = {
    "date": ["2023-02-29", "2023-13-01", "2023-04-31", "1900-02-29", "0000-01-01", "2023-1-1"],
    "time": ["24:00:00Z", "12:00:60Z", "12:00:00", "12:00:00+24:00"],
    "date-time": ["2023-02-29T00:00:00Z", "2023-01-01 00:00:00Z"],
    "duration": ["P", "PT", "P1Y1D", "4D"],
    "email": ["2962", "a@", ".a@b.c", "a..b@c.d", "a" * 65 + "@b.cd"],
    "hostname": ["-a", "a-", "a..b", "a_b", "xn--X", "a" * 64],
    "ipv4": ["256.1.1.1", "1.2.3", "01.2.3.4"],
    "ipv6": ["12345::", "::1::", "1:2:3:4:5:6:7:8:9"],
    "uuid": ["2eb8aa08aa9811eab4aa73b441d16380"],
    "uri": ["//foo.bar", "a b", ":", "http://a/{b}"],
    "uri-reference": ["\\\\a", "a b"],
    "iri": ["/abc", "http:// "],
    "iri-reference": ["\\"],
    "uri-template": ["{term", "}"],
    "json-pointer": ["a", "/~2"],
    "relative-json-pointer": ["/a", "01/a"],
    "idn-email": ["2962", ".é@b.cd", "a b@c.de", "é@", "a" * 65 + "@b.cd", "é" * 33 + "@b.cd"],
    "idn-hostname": ["-é", "é-", "a·b", "ab--é", "\u302ea", "xn--X", "é" * 60, "a..b", "א1a", "e\u0301"],
    "regex": ["(", ")", "a**", "[z-a]", "a{2,1}", r"\q", "+", "[a", "^*", r"\u12", r"\uD800", "(?<x>a", "[]"],
}


def _matches(name: str, text: str) -> bool:
    return all(re.fullmatch(full_pattern(pattern), text) for pattern in ENFORCED[name])


@cache
def _rust(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True)


def _accepted(name: str, text: str) -> bool:
    return _rust(name).is_valid(text) and PYTHON.conforms(text, name)


@pytest.mark.parametrize("name", sorted(ENFORCED))
def test_ordinary_texts_of_a_format_match_and_wrong_ones_do_not(name: str) -> None:
    assert [text for text in ORDINARY[name] if not _matches(name, text)] == []
    assert [text for text in WRONG[name] if _matches(name, text)] == []


@pytest.mark.parametrize("name", sorted(ENFORCED))
def test_whatever_is_written_in_a_format_is_accepted_by_two_validators(compiler: GrammarCompiler, name: str) -> None:
    compiled = compiler.compile(JsonSchema({"type": "string", "format": name}))

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 2**32))
    def check(seed: int) -> None:
        text = draw(compiled.matcher(), random.Random(seed), compiler.n_words, most=80)
        if text is not None:
            assert _matches(name, json.loads(text)), text
            assert _accepted(name, json.loads(text)), text

    check()


@pytest.mark.parametrize("name", sorted(ENFORCED))
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_texts_of_every_part_of_a_format_are_accepted_by_two_validators(name: str) -> None:
    (pattern,) = ENFORCED[name]
    sampler, rng = Sampler(full_pattern(pattern)), random.Random(0)
    drawn = {text for _ in range(400) if (text := sampler.text(rng, rng.choice([3, 10, 40, 250]))) is not None}
    assert len(drawn) > 100
    assert [text for text in drawn if not _accepted(name, text)] == []


def test_expressions_of_the_regex_format_are_ours_to_read() -> None:
    sampler, rng = Sampler(full_pattern(ENFORCED["regex"][0])), random.Random(1)
    for _ in range(600):
        text = sampler.text(rng, rng.choice([3, 10, 40]))
        if text is not None:
            regex_syntax.parse(text)


def test_international_names_are_composed_of_valid_code_points_within_their_lengths() -> None:
    sampler, rng = Sampler(full_pattern(ENFORCED["idn-hostname"][0])), random.Random(2)
    drawn = [text for _ in range(600) if (text := sampler.text(rng, rng.choice([3, 10, 40, 250]))) is not None]
    widest = "".join("一힣"[i % 2] for i in range(11))
    for name in [*drawn, ".".join(["a" * 62] * 4), ".".join([widest] * 4), ".".join([widest[::-1]] * 4)]:
        assert _matches("idn-hostname", name)
        assert len(idna.encode(name)) <= 253


def test_every_format_of_the_standard_is_enforced() -> None:
    standard = {
        "date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6",
        "uri",
        "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer", "relative-json-pointer",
        "regex",
    }  # fmt: skip
    assert ENFORCED.keys() == standard
