"""What holds in every dialect: right calls can be written and are read back, wrong ones cannot be written."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grammars import Call, GrammarCompiler, ToolCalls, get_dialect
from grammars.validation import validate
from tests.grammars.answers import takes
from tests.grammars.dialects.offered import NAMES, TOOLS, WRONG, as_calls, calls, streamed, values

CUTS = st.lists(st.integers(0, 300), max_size=6)
RELAXED = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("dialect", NAMES)
def test_right_calls_are_taken_and_read_back_wherever_the_stream_is_cut(
    compiler: GrammarCompiler, dialect: str
) -> None:
    most = 1 if dialect == "llama3_json" else 3
    format_ = get_dialect(dialect)

    @RELAXED
    @given(given_calls=calls(most), cuts=CUTS)
    def check(given_calls: Any, cuts: list[int]) -> None:
        text = format_.write(as_calls(given_calls))
        if not format_.is_spaced:
            compact = [Call(name, _compact(arguments)) for name, arguments in given_calls]
            text = format_.write(compact)
        assert takes(compiler, ToolCalls(TOOLS, "required", dialect=dialect), text), text
        assert takes(compiler, ToolCalls(TOOLS, dialect=dialect), text), text
        assert validate(ToolCalls(TOOLS, dialect=dialect), text) is None
        assert values(format_.parse(text)) == given_calls
        said, found = streamed(format_.stream(), text, cuts)
        assert not said
        assert found == format_.parse(text)

    check()


def _compact(arguments: Any) -> str:
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("dialect", NAMES)
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_wrong_calls_cannot_be_written(compiler: GrammarCompiler, dialect: str, mode: Any) -> None:
    constraint, format_ = ToolCalls(TOOLS, mode, dialect=dialect), get_dialect(dialect)
    for name, arguments in WRONG:
        text = format_.write([Call(name, _compact(arguments))])
        assert not takes(compiler, constraint, text), text
        assert validate(constraint, text) is not None, text
        right = format_.write([Call("ping", "{}")])
        assert not takes(compiler, constraint, right[:-1]), "half a call"
        assert not takes(compiler, constraint, right + text)
