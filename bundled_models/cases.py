"""Test cases of the bundled pair: where they come from, what counts as right."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from bundled_models import signature
from bundled_models.catalogue import Catalogue, Entry, load
from bundled_models.generator import SOURCES, Example, Generator, Source
from router_model.grading import exact_match

HERE = Path(__file__).parent
HANDWRITTEN, DEMO, OPEN_TOOLS = HERE / "handwritten.jsonl", HERE / "demo_sentences.jsonl", HERE / "open_tools.jsonl"

MAX_TOKENS = 256
CaseKind = Literal["call", "calls", "none", "extract", "chat"]


class Case(msgspec.Struct, frozen=True):
    """One request and its right answer.

    tools: OpenAI tool definitions; schema: the JSON schema of an extraction. expected: the calls as `{name, arguments}`
    in order, the object of an extraction, or None where the right answer is text.
    """

    id: str
    kind: CaseKind
    difficulty: str
    tools: tuple[dict[str, Any], ...]
    schema: dict[str, Any] | None
    schema_name: str | None
    system: str | None
    messages: tuple[dict[str, Any], ...]
    expected: list[dict[str, Any]] | dict[str, Any] | None

    @property
    def prompt(self) -> str:
        """The prompt text, in the format of `signature.py`."""
        before = signature.preamble(self.tools, self.schema, self.system, self.schema_name)
        return before + signature.turns(self.messages)

    @property
    def text(self) -> str:
        """What the user says last."""
        return str([m for m in self.messages if m["role"] == "user"][-1]["content"])

    def body(self, model: str) -> dict[str, Any]:
        """The case as a chat completion request to `model`: greedy, at most MAX_TOKENS long."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        request: dict[str, Any] = {
            "model": model,
            "messages": [*system, *_openai(self.messages)],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        if self.tools:
            request["tools"] = list(self.tools)
        if self.schema is not None:
            named = {"name": self.schema_name or "answer", "schema": self.schema}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        return request

    def is_right(self, answer: str) -> bool:
        """Whether the model's text is exactly right (see `router_model.grading`)."""
        return exact_match(answer, self.expected)


def _openai(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The messages with earlier calls as OpenAI writes them; the template renders them as the model did."""
    open_calls: list[str] = []
    for message in messages:
        content = str(message["content"])
        if message["role"] == "assistant" and content.startswith('[{"name":'):
            named = [(f"call_{i}", call) for i, call in enumerate(json.loads(content))]
            open_calls = [name for name, _ in named]
            calls = [
                {"id": name, "type": "function", "function": call | {"arguments": _compact(call["arguments"])}}
                for name, call in named
            ]
            yield {"role": "assistant", "content": None, "tool_calls": calls}
        elif message["role"] == "tool":
            yield message | {"tool_call_id": open_calls[0]}
        else:
            yield message


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def difficulty_of(kind: str, offered: int, given: int) -> str:
    """easy: one call, at most two values, at most two tools; hard: several calls, four values and more, or five tools
    and more; medium: the rest."""
    if kind == "calls" or given >= 4 or offered >= 5:
        return "hard"
    return "easy" if given <= 2 and offered <= 2 else "medium"


def generated(
    count: int,
    seed: int,
    split: Literal["train", "router", "held"] = "held",
    sources: Mapping[Source, float] = MappingProxyType(SOURCES),
) -> list[Case]:
    """`count` cases of a split of the generator, their tools drawn from the sources."""
    maker = Generator(seed, split, sources=sources)
    return [_of_example(f"{split}-{seed}-{i}", maker.example()) for i in range(count)]


def _of_example(name: str, example: Example) -> Case:
    expected = json.loads(example.answer) if example.answer[:1] in "[{" else None
    return Case(
        id=name,
        kind=example.kind,
        difficulty=difficulty_of(example.kind, example.offered, example.given),
        tools=example.tools,
        schema=example.schema,
        schema_name=example.schema_name,
        system=example.system,
        messages=example.messages,
        expected=expected,
    )


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """A line of the hand-written files: tools and schema by their names in the catalogue, or whole definitions."""

    id: str
    kind: CaseKind
    difficulty: str
    tools: list[str | dict[str, Any]]
    schema: str | None
    text: str
    expected: list[dict[str, Any]] | dict[str, Any] | None


def written(path: Path, catalogue: Catalogue | None = None) -> list[Case]:
    """The cases of a hand-written file. Raises ValueError with file and line number where a line is malformed."""
    known = catalogue or load()
    tools = {t.name: _tool(t) for t in known.tools}
    schemas = {s.name: {"title": s.name, **_object(s)} for s in known.schemas}
    return [_of_line(line, tools, schemas) for line in _lines(path)]


def _lines(path: Path) -> Iterable[_Line]:
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield msgspec.json.decode(text, type=_Line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from error


def _object(entry: Entry) -> dict[str, Any]:
    """The JSON schema of an entry's arguments or properties, all optional ones included."""
    return {
        "type": "object",
        "properties": {p.name: p.json_schema() for p in entry.parameters},
        "required": [p.name for p in entry.parameters if p.required],
        "additionalProperties": False,
    }


def _tool(entry: Entry) -> dict[str, Any]:
    """A catalogue tool in OpenAI's form, with the first of its descriptions."""
    about = entry.descriptions["train"][0]
    return {"type": "function", "function": {"name": entry.name, "description": about, "parameters": _object(entry)}}


def _of_line(line: _Line, tools: dict[str, dict[str, Any]], schemas: dict[str, dict[str, Any]]) -> Case:
    return Case(
        id=line.id,
        kind=line.kind,
        difficulty=line.difficulty,
        tools=tuple(t if isinstance(t, dict) else tools[t] for t in line.tools),
        schema=schemas[line.schema] if line.schema else None,
        schema_name=line.schema,
        system=None,
        messages=({"role": "user", "content": line.text},),
        expected=line.expected,
    )
