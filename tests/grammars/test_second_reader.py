"""Grammars read a second time: right answers pass, wrong ones do not, and what is not read is said."""

import random
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grammars import ConstraintRefused, Grammar, GrammarCompiler
from grammars.context_free import makes
from grammars.ebnf import read_ebnf
from grammars.second_reader import endless_rule, judge, why_unread
from tests.grammars.answers import draw, takes


@pytest.fixture(scope="module")
def compiler(tokenizer: Any) -> GrammarCompiler:
    """A compiler for the bytes, in this process: hundreds of tiny grammars need no probe."""
    return GrammarCompiler(tokenizer, vocab_size=300, probe=None)


EBNF = st.recursive(
    st.sampled_from(['"a"', '"bc"', '"\\n\\"é"', "[a-c]", "[^a\\n-]", "[\\x41-\\u0043\\]]", "x"]),
    lambda inner: (
        st.builds("({} {})".format, inner, inner)
        | st.builds("({} | {})".format, inner, inner)
        | st.builds("({}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{1,}"]))
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(root=EBNF, x=st.sampled_from(['"b" | "(" root ")"', '[0-9] x | "."', '"b"?']), seed=st.integers(0, 2**32))
def test_both_readers_of_ebnf_agree(compiler: GrammarCompiler, root: str, x: str, seed: int) -> None:
    grammar = Grammar(f"root ::= {root} # a comment\nx ::= {x}")
    rng = random.Random(seed)
    try:
        matcher = compiler.compile(grammar).matcher()
    except ConstraintRefused:
        return  # it makes no text
    assert why_unread(grammar) is None
    text = draw(matcher, rng, compiler.n_words, 40)
    if text is None:
        return
    answer = text.decode()
    assert judge(grammar, answer)
    at = rng.randrange(len(answer) + 1)
    changed = answer[:at] + rng.choice('abcx("\n.') + answer[at + rng.randrange(2) :]
    assert judge(grammar, changed) == takes(compiler, grammar, changed)


LARK = [
    ('start: "a" b* | "x"i\nb: /[0-9]+x?/', ["a", "a1x2", "X", "x"], ["b", "a1y"]),
    ('start: NAME "=" VALUE\nNAME: /[a-z_]\\w*/\nVALUE: /[^\\n]*/', ["a1=b", "é=", "a="][::2], ["1=b", "a=\n"]),
    (
        '?start: "[" [item ("," item)*] "]"\n!item: /\\d{1,2}/ -> n\n  | start // c',
        ["[]", "[1,[2]]"],
        ["[1,]", "[123]"],
    ),
    (
        'start: A{2,3} ("x" | "y")~1..2 D?\nA: "a".."c"\nD: /(?:\\/|\\u0041)/',
        ["abx", "abcxyA", "ccx/"],
        ["ax", "abxyy"],
    ),
]


@pytest.mark.parametrize(("text", "right", "wrong"), LARK, ids=range(len(LARK)))
def test_lark_is_read_as_llguidance_masks_it(
    compiler: GrammarCompiler, text: str, right: list[str], wrong: list[str]
) -> None:
    grammar = Grammar(text, "lark")
    assert why_unread(grammar) is None
    for answer in right:
        assert takes(compiler, grammar, answer), answer
        assert judge(grammar, answer), answer
    for answer in wrong:
        assert not takes(compiler, grammar, answer), answer
        assert judge(grammar, answer) is False, answer
    for seed in range(15):
        drawn = draw(compiler.compile(grammar).matcher(), random.Random(seed), compiler.n_words, 40)
        assert drawn is None or judge(grammar, drawn.decode()), drawn


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar('root ::= TagDispatch(("a", b))\nb ::= "x"'),
        Grammar('root ::= "a" (= "b") "b"'),
        Grammar('%ignore " "\nstart: "a"', "lark"),
        Grammar("start: A & B\nA: /a+/\nB: /aa/", "lark"),
        Grammar("start: /a/i", "lark"),
        Grammar("start: /a(?=b)b/", "lark"),
    ],
)
def test_what_is_not_read_is_said(grammar: Grammar) -> None:
    assert why_unread(grammar)
    assert judge(grammar, "a") is None


@pytest.mark.parametrize("rules", ['root ::= [a-z] root | "."', 'root ::= root [a-z] | "."', 'root ::= [a-z]* "."'])
def test_long_answers_are_judged_in_linear_time(rules: str) -> None:
    text = "." + "a" * 20_000 if "root [a-z]" in rules else "a" * 20_000 + "."
    began = time.process_time()
    assert makes(read_ebnf(rules), "root", text) is True
    assert makes(read_ebnf(rules), "root", text + "-") is False
    assert time.process_time() - began < 5, "quadratic time takes minutes"


def test_what_would_take_quadratic_time_is_not_judged() -> None:
    rules = read_ebnf('root ::= [a-z] other | "."\nother ::= [a-z] root | "."')
    assert makes(rules, "root", "ab.") is True
    assert makes(rules, "root", "a" * 20_000 + ".") is None


@pytest.mark.parametrize(
    ("grammar", "name"),
    [
        (Grammar('root ::= "a" root'), "root"),
        (Grammar('root ::= "a" | "b" x\nx ::= "c" y\ny ::= x | "d" y'), "x"),
        (Grammar('start: "a" | "b" x\nx: "c" x', "lark"), "x"),
    ],
)
def test_a_rule_without_an_end_is_refused_by_name(compiler: GrammarCompiler, grammar: Grammar, name: str) -> None:
    with pytest.raises(ConstraintRefused, match=f"the rule {name} never ends"):
        compiler.compile(grammar)


@pytest.mark.parametrize(
    "rules", ['root ::= "a" x\nx ::= x? "b"', 'root ::= x{0} "a"\nx ::= "b" x', 'root ::= "a"\nx ::= x']
)
def test_what_can_end_or_is_never_reached_is_not_refused(compiler: GrammarCompiler, rules: str) -> None:
    assert draw(compiler.compile(Grammar(rules)).matcher(), random.Random(0), compiler.n_words) is not None


def test_large_grammars_are_looked_through_quickly() -> None:
    chain = "\n".join(f'r{i} ::= "a" r{i + 1} | r{max(0, i - 1)}' for i in range(3_000))
    wide = "root ::= " + " ".join(f"r{i}" for i in range(3_000))
    began = time.process_time()
    for text in (f'root ::= r0\n{chain}\nr3000 ::= "b"', f"{wide}\n{chain}\nr3000 ::= r0"):
        why_unread(Grammar(text))
        endless_rule(Grammar(text))
    assert time.process_time() - began < 5, "quadratic time takes minutes"
