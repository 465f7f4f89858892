"""Which string values of an answer are free: held by `{"type": "string"}` and nothing else that speaks of them."""

import json
from collections.abc import Iterator
from typing import Any, Final

from grammars import draft
from grammars.constraint import JsonSchema, ToolCalls
from grammars.dialects import get_dialect
from grammars.errors import ConstraintRefused
from grammars.pointer import child, resolve
from grammars.references import References

# Keywords that assert nothing about the value beside them.
_SILENT: Final = frozenset({
    "title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly", "$comment",
    "$schema", "$id", "id", "$anchor", "$defs", "definitions",
})  # fmt: skip
# What an object or array on the way to a free string may say: nothing that could reach the string a second time.
_PASSABLE: Final = _SILENT | {
    "type", "properties", "required", "additionalProperties", "minProperties", "maxProperties", "items", "minItems",
    "maxItems",
}  # fmt: skip

Path = tuple[str | int, ...]


class FreeStrings:
    """The free strings of one constraint's answers. Member names are never free."""

    def __init__(self, inner: JsonSchema | ToolCalls) -> None:
        """inner: a constraint that compiles.

        Raises ConstraintRefused for a `$schema` that names no known draft, and for calls that are no JSON.
        """
        answer = inner.answer if isinstance(inner, ToolCalls) else inner
        tools = inner.tools if isinstance(inner, ToolCalls) else ()
        self._dialect = get_dialect(inner.dialect) if isinstance(inner, ToolCalls) else None
        if self._dialect is not None and not self._dialect.is_json:
            reason = f"is not held in the calls of this model ({self._dialect.name}): leave it out"
            raise ConstraintRefused("copy_strings", "", reason)
        if self._dialect is not None and self._dialect.tells and self._dialect.calls_at is None and answer is not None:
            reason = f"is not held beside a response_format with this model's calls ({self._dialect.name}): drop one"
            raise ConstraintRefused("copy_strings", "", reason)
        self._tools = {tool.name: _SchemaStrings(tool.parameters) for tool in tools}
        self._answer = _SchemaStrings(answer.schema) if isinstance(answer, JsonSchema) else None
        self._text_is_json = answer is not None
        self._leads = {} if self._dialect is None else {self._dialect.lead(name): name for name in self._tools}

    @property
    def marker(self) -> bytes:
        """What stands before each JSON text of calls; empty where none does."""
        return b"" if self._dialect is None else self._dialect.marker.encode()

    def reads(self, first_byte: int) -> bool:
        """Whether an answer that begins with this byte is JSON; else it is text, in which nothing is free."""
        if self._text_is_json or self._dialect is None:
            return True
        return first_byte in {"array": b"[", "object": b"{", "": b""}[self._dialect.calls_are]

    def begins_call(self, lead: bytes, byte: int) -> bool:
        """Whether calls begin with `byte`, behind a marker and the text `lead`."""
        dialect = self._dialect
        if dialect is None or byte not in (b"{" if dialect.calls_at is None else b"["):
            return False
        return lead.decode("utf-8", "replace").strip() in self._leads

    def named(self, lead: bytes) -> str:
        """The name of the call that `lead` stands before, where the name is not in the JSON text; else empty."""
        return self._leads[lead.decode("utf-8", "replace").strip()] if self._is_named_before else ""

    def is_name(self, path: Path) -> bool:
        """Whether the value at `path` is the name of a call."""
        return not self._is_named_before and self._in_call(path) == ("name",)

    def is_free(self, path: Path, name: str, *, in_call: bool = True) -> bool:
        """Whether a string at `path` is free. name: of the call that is being read, where it is one.

        in_call: whether the JSON text stands behind a marker; it tells only in formats that have one.
        """
        member = self._in_call(path) if in_call or not self.marker else None
        if member is None:
            return self._answer is not None and self._answer.is_free(path)
        tool = self._tools.get(name)
        if tool is None or self._dialect is None:
            return False
        if self._dialect.arguments_at is None:
            return tool.is_free(member)
        return member[:1] == (self._dialect.arguments_at,) and tool.is_free(member[1:])

    def values(self, text: str) -> Iterator[tuple[str, str]]:
        """The free strings of a finished answer, each with its pointer (see `validation.Violation`)."""
        calls = None if self._dialect is None else self._dialect.parse(text, after_text=not self._text_is_json)
        if calls is None:
            if self._answer is not None:
                yield from self._answer.values(json.loads(text), "")
            return
        for i, call in enumerate(calls):
            yield from self._tools[call.name].values(json.loads(call.arguments), child("", i, "arguments"))

    @property
    def _is_named_before(self) -> bool:
        return self._dialect is not None and self._dialect.arguments_at is None

    def _in_call(self, path: Path) -> Path | None:
        """The path within the call that `path` leads into; None outside of calls."""
        if self._dialect is None:
            return None
        at = self._dialect.calls_at
        if at is None:
            return path
        is_call = path[: len(at)] == at and len(path) > len(at) and isinstance(path[len(at)], int)
        return path[len(at) + 1 :] if is_call else None


class _SchemaStrings:
    """The free strings of the instances of one schema."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._references = References(document, draft.declared(document))

    def is_free(self, path: Path) -> bool:
        """Whether the schema of the value at `path` is plainly a string's."""
        found = self._at("")
        for step in path:
            if found is None or found[0].keys() - _PASSABLE:
                return False
            node, pointer = found
            if isinstance(step, int):
                found = self._at(child(pointer, "items")) if "items" in node else None
            else:
                properties = node.get("properties")
                is_known = isinstance(properties, dict) and step in properties
                found = self._at(child(pointer, "properties", step)) if is_known else None
        if found is None or found[0].keys() - _SILENT != {"type"}:
            return False
        types = found[0]["type"]
        return types == "string" or (isinstance(types, list) and "string" in types)

    def values(self, instance: Any, pointer: str) -> Iterator[tuple[str, str]]:
        """The free strings of a parsed instance, each with its pointer."""
        stack: list[tuple[Any, Path]] = [(instance, ())]
        while stack:
            value, path = stack.pop()
            if isinstance(value, str) and self.is_free(path):
                yield child(pointer, *path), value
            inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            stack.extend((member, (*path, step)) for step, member in inner)

    def _at(self, pointer: str) -> tuple[dict[str, Any], str] | None:
        """The node at `pointer` behind its references, with its own pointer; None where other keywords stand by."""
        seen: set[str] = set()
        while pointer not in seen:
            seen.add(pointer)
            try:
                node = resolve(self._document, pointer)
                if not isinstance(node, dict):
                    return None
                if "$ref" not in node:
                    return node, pointer
                if node.keys() - _SILENT != {"$ref"}:
                    return None
                pointer = self._references.locate("$ref", node["$ref"], pointer, pointer, ())
            except (ConstraintRefused, LookupError):
                return None
        return None
