"""xgrammar behind the matcher: what it forces inside of characters, and what it says of what it cannot read."""

import pytest

from grammars import ConstraintRefused, Grammar, GrammarCompiler


@pytest.mark.parametrize(
    ("text", "written", "forced"),
    [
        ('root ::= "é" "x"', b"", "éx".encode()),
        ('root ::= "é" "x"', "é".encode()[:1], "éx".encode()[1:]),
        ('root ::= ("é" | "è") "x"', b"", "é".encode()[:1]),
        ('root ::= "漢" | "漣"', "漢".encode()[:1], "漢".encode()[1:2]),
        ('root ::= "a" | "ab"', b"a", b""),
    ],
)
def test_forced_bytes_may_begin_and_end_inside_a_character(
    compiler: GrammarCompiler, text: str, written: bytes, forced: bytes
) -> None:
    matcher = compiler.compile(Grammar(text)).matcher()
    for byte in written:
        assert matcher.advance(byte)
    assert matcher.forced_bytes() == forced


def test_nothing_is_forced_where_that_is_not_known_to_end(compiler: GrammarCompiler) -> None:
    # The macro is beyond our own reader, so that nobody has shown that the rules end.
    matcher = compiler.compile(Grammar('root ::= "ab" x\nx ::= TagDispatch(("c", y))\ny ::= "d"')).matcher()
    assert matcher.forced_bytes() == b""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('root ::= "a', 'EBNF lexer error at line 1, column 12: Expect " in string literal'),
        ("root ::= b", 'EBNF parser error at line 1, column 10: Rule "b" is not defined'),
        ('other ::= "a"', 'The root rule with name "root" is not found'),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(compiler: GrammarCompiler, text: str, says: str) -> None:
    with pytest.raises(ConstraintRefused) as caught:
        compiler.compile(Grammar(text))
    assert says in caught.value.reason
    assert "/project/" not in caught.value.reason
