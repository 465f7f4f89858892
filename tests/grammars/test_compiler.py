"""Compiling: once, within limits, remembered, and never with any exception but the two that clients are told of."""

import contextlib
import subprocess
import sys
import threading
import time
from typing import Any

import psutil
import pytest

from benchmarks.bomb_corpus import bombs, nested, pairs
from grammars import (
    Choice,
    CompileTimeout,
    Constraint,
    ConstraintRefused,
    FreeText,
    Grammar,
    GrammarCompiler,
    JsonObject,
    JsonSchema,
    Limits,
    Regex,
    Tool,
    ToolCalls,
)
from grammars.cache import CompileCache
from grammars.heap import heap_bytes
from tests.grammars.answers import takes

CACHE_BYTES = 32 << 20


BOMBS: dict[str, Constraint] = bombs() | {
    "no Lark": Grammar("start: (", "lark"),
    "nested 60 deep": JsonSchema(nested(30)),
    "at least a billion": JsonSchema({"type": "string", "minLength": 10**9}),
    "8 alternatives multiplied": JsonSchema({"allOf": pairs(8)}),
    "129 tools": ToolCalls(tuple(Tool(f"f{i}") for i in range(129))),
    "an empty schema": JsonSchema({}),
    "no choice": Choice(()),
    "NUL": JsonSchema({"const": "\x00"}),
    "not a number": JsonSchema({"minimum": float("nan")}),
    "no JSON": JsonSchema({"const": object()}),
    "300 patterns": JsonSchema({"patternProperties": {f"^p{i}_": {} for i in range(300)}}),
    "lone surrogates": JsonSchema({"pattern": "^[\\ud800-\\udbff]$"}),
    "a lone surrogate": JsonSchema({"const": "\ud800"}),
    "a surrogate choice": Choice(("\ud800",)),
    "not a surrogate": JsonSchema({"not": {"const": "\ud800"}}),
    "a surrogate in a grammar": Grammar('root ::= "\ud800"'),
    "a text up to a surrogate": FreeText("\ud800"),
    "a choice of NUL": Choice(("\x00",)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_compiles_quickly_or_is_refused(compiler: GrammarCompiler, name: str) -> None:
    began = time.process_time()
    refusal: ConstraintRefused | None = None
    try:
        compiled = compiler.compile(BOMBS[name])
        compiled.matcher().forced()
    except ConstraintRefused as error:
        refusal = error
    if refusal is not None:
        assert refusal.keyword
        assert refusal.pointer == "" or refusal.pointer.startswith("/")
    assert time.process_time() - began < 2.5


def test_what_is_called_quick_is_quick_without_a_probe(tokenizer: Any) -> None:
    here = GrammarCompiler(tokenizer, vocab_size=300, probe=None)
    here.warm_up()
    for name, bomb in BOMBS.items():
        if here.is_quick(bomb):
            began = time.thread_time()
            with contextlib.suppress(ConstraintRefused):
                here._compile(bomb, here._encoded(bomb)).matcher().forced()
            assert time.thread_time() - began < 0.5, name


@pytest.mark.parametrize("n", [500, pytest.param(10_000, marks=pytest.mark.full)])
def test_memory_stays_bounded_however_many_schemas_come(tokenizer: Any, n: int) -> None:
    small = GrammarCompiler(tokenizer, vocab_size=300, max_bytes=CACHE_BYTES)

    def compile_some(first: int, count: int) -> None:
        for i in range(first, first + count):
            names = {f"{chr(97 + i % 26)}{i}_{j}": {"type": ("string", "integer")[j % 2]} for j in range(i % 12 + 1)}
            small.compile(JsonSchema({"type": "object", "properties": names, "required": list(names)[: i % 3]}))

    compile_some(0, 200)  # more than the cache holds
    before = psutil.Process().memory_info().rss
    compile_some(200, n)
    assert small._cache.n_bytes <= CACHE_BYTES
    assert psutil.Process().memory_info().rss - before < CACHE_BYTES


def test_a_compiled_constraint_takes_about_as_much_as_is_counted(tokenizer: Any) -> None:
    here = GrammarCompiler(tokenizer, vocab_size=300, probe=None)
    here.warm_up()
    before = heap_bytes()
    if before is None:
        pytest.skip("this C library does not say how much it has handed out")
    kept = [
        here.compile(JsonSchema({"properties": {f"p{i}_{j}": {"type": "string"} for j in range(i)}}))
        for i in range(1, 40)
    ]
    after = heap_bytes()
    assert after is not None
    counted = sum(compiled.n_bytes for compiled in kept)
    assert 0.5 * (after - before) < counted < 8 * (after - before)


@pytest.mark.parametrize("constraint", [JsonObject(), Regex("a"), Choice(("a",)), JsonSchema({"type": "null"})])
def test_what_was_compiled_is_compiled_once(compiler: GrammarCompiler, constraint: Constraint) -> None:
    first = compiler.compile(constraint)
    assert compiler.compile(constraint) is first
    assert compiler.cached(constraint) is first


def test_a_constraint_is_computed_once_however_many_ask_at_once() -> None:
    calls: list[int] = []
    gate = threading.Event()

    def compute() -> str:
        calls.append(1)
        gate.wait(5)
        return "done"

    cache: CompileCache[str] = CompileCache(8, 10_000, len)
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(cache.get(b"k", compute, 5))) for _ in range(8)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert (len(calls), results) == (1, ["done"] * 8)


def test_the_cache_stays_within_its_entries_and_bytes_and_forgets_the_oldest_first() -> None:
    cache: CompileCache[str] = CompileCache(3, 100, len)
    for name in ("a", "b", "c"):
        cache.get(name.encode(), lambda name=name: name * 9, 1)
    cache.peek(b"a")
    cache.get(b"d", lambda: "d" * 9, 1)
    assert (cache.peek(b"a"), cache.peek(b"b"), len(cache)) == ("a" * 9, None, 3)
    cache.get(b"e", lambda: "e" * 80, 1)
    assert cache.n_bytes <= 100
    assert cache.peek(b"e") == "e" * 80
    cache.get(b"f", lambda: "f" * 200, 1)
    assert cache.peek(b"f") is None


def test_a_refusal_is_remembered_and_a_timeout_is_not() -> None:
    cache: CompileCache[str] = CompileCache(8, 10_000, len)
    calls: list[int] = []
    gate = threading.Event()

    def refuse() -> str:
        calls.append(1)
        raise ConstraintRefused("not", "/a", "no")

    def slow() -> str:
        gate.wait(5)
        return "late"

    for _ in range(3):
        with pytest.raises(ConstraintRefused):
            cache.get(b"refused", refuse, 1)
    assert len(calls) == 1
    with pytest.raises(CompileTimeout):
        cache.get(b"slow", slow, 0.01)
    gate.set()
    assert cache.get(b"slow", slow, 5) == "late"


def test_limits_are_those_given(tokenizer: Any) -> None:
    small = GrammarCompiler(tokenizer, limits=Limits(properties=1, choices=1))
    for constraint in (JsonSchema({"properties": {"a": {}, "b": {}}}), Choice(("a", "b"))):
        with pytest.raises(ConstraintRefused):
            small.compile(constraint)


def test_white_space_is_compact_unless_single_spaces_are_asked_for(tokenizer: Any, compiler: GrammarCompiler) -> None:
    single = GrammarCompiler(tokenizer, vocab_size=300, whitespace="single")
    tools = ToolCalls((Tool("f", "", {"type": "object", "properties": {"a": {"type": "array"}}}),), "required")
    calls = '[{"name":"f","arguments":{"a":[1,2]}},{"name":"f","arguments":{}}]'
    for constraint, text in ((JsonSchema({"type": "object"}), '{"a":[1,{"b":null}],"c":2}'), (tools, calls)):
        spaced = text.replace(",", ", ").replace(":", ": ")
        assert takes(compiler, constraint, text)
        assert not takes(compiler, constraint, spaced)
        assert takes(single, constraint, text)
        assert takes(single, constraint, spaced)
        assert not takes(single, constraint, spaced.replace(", ", ",  "))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"vocab_size": 10}, "vocab_size"), ({"stop_token_ids": []}, "stop_token_ids"), ({"stop_token_ids": [999]},
     "stop_token_ids")],
)  # fmt: skip
def test_a_vocabulary_that_does_not_fit_is_an_error(tokenizer: Any, arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GrammarCompiler(tokenizer, **arguments)
    with pytest.raises(ValueError, match="fast tokenizer"):
        GrammarCompiler(object())


def test_every_stop_token_ends_an_answer(tokenizer: Any) -> None:
    two = GrammarCompiler(tokenizer, vocab_size=300, stop_token_ids=[256, 10])
    matcher = two.compile(JsonSchema({"type": "string"})).matcher()
    for byte in b'"a':
        assert matcher.advance(byte)
    assert not matcher.advance(10)
    assert matcher.advance(ord('"'))
    assert matcher.advance(10)
    assert matcher.is_terminated


@pytest.mark.parametrize(
    "text",
    ['start: %json {"type": "string"}', "start: <|endoftext|>", "start: @other", 'start: "a"\n%llguidance {}',
     "start[max_tokens=3]: /a/", "start: ~ /[xyz_]/", "start: A\nA: /x./ & ~/[xyz_]+/"],
)  # fmt: skip
def test_a_lark_grammar_may_hold_rules_only(compiler: GrammarCompiler, text: str) -> None:
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(Grammar(text, "lark"))
    assert caught.value.keyword == "grammar"


def test_words_of_directives_inside_lark_strings_are_only_text(compiler: GrammarCompiler) -> None:
    grammar = Grammar('start: "%json <a> @b" // %json <x>\n  | /%json [<>]@/', "lark")
    assert takes(compiler, grammar, "%json <a> @b")
    assert takes(compiler, grammar, "%json >@")


def test_importing_the_package_imports_no_backend() -> None:
    code = "import sys, grammars; print(sys.modules.keys() & {'torch', 'xgrammar', 'llguidance', 'outlines_core'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
