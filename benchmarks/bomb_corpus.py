"""Constraints made to take all time or memory: each must be refused, or answered, quickly.

The first are those by which grammar engines are known to hang; the rest were made for this engine's own plans: what
multiplies, what recurses, what is small as text and large as an automaton.
"""

import json
from typing import Any

from grammars.constraint import Choice, Constraint, Grammar, JsonSchema, Regex, Tool, ToolCalls


def bombs() -> dict[str, Constraint]:
    """By name. All of them are plain data that travels over HTTP."""
    return _known() | _regexes() | _schemas() | _recursive() | _grammars() | _tools()


def request_fields(constraint: Constraint) -> dict[str, Any]:
    """The fields of a chat request that ask for `constraint`. Raises TypeError for one that has none here.

    Schemas go as text, of any depth, into a field that no prompt shows.
    """
    match constraint:
        case JsonSchema():
            return {"structured_outputs": {"json": _text(constraint.schema)}}
        case Regex():
            return {"structured_outputs": {"regex": constraint.pattern}}
        case Choice():
            return {"structured_outputs": {"choice": list(constraint.choices)}}
        case Grammar():
            return {"structured_outputs": {"grammar": constraint.text}}
        case ToolCalls():
            functions = [{"name": tool.name, "parameters": tool.parameters} for tool in constraint.tools]
            return {"tools": [{"type": "function", "function": f} for f in functions], "tool_choice": "required"}
    raise TypeError(f"{type(constraint).__name__} has no field")


def _text(schema: Any) -> str:
    """JSON, also where it nests deeper than Python's stack: then it is an object in an object."""
    depth, node = 0, schema
    while isinstance(node, dict) and node.keys() == {"type", "properties"} and node["properties"].keys() == {"a"}:
        depth, node = depth + 1, node["properties"]["a"]
    head = '{"type":"object","properties":{"a":' * depth
    return head + json.dumps(node) + "}}" * depth


def _known() -> dict[str, Constraint]:
    return {
        "30,000 parentheses": Grammar("root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000),
        "left recursion": Grammar('root ::= root "a" | "b"'),
        "a rule that is itself": Grammar("root ::= root"),
        "nested 500 deep": JsonSchema(nested(500)),
        "nested 20,000 deep": JsonSchema(nested(20_000)),
        "50,000 values": JsonSchema({"enum": [f"v{i}" for i in range(50_000)]}),
        "5,000 properties": JsonSchema(_strings(5_000)),
        "12 levels of doubling": JsonSchema(doubled(12)),
        "a string of a billion": JsonSchema({"type": "string", "maxLength": 10**9}),
        "a million items": JsonSchema({"type": "array", "minItems": 10**6}),
        "a{1,1000000}": Regex("a{1,1000000}"),
        "nested repetitions": Regex("((a{1,100}){1,100}){1,100}"),
        "(a+)+b": Regex("(a+)+b"),
        "an exploding automaton": Regex("(a|b)*a(a|b){24}"),
        "200 optional properties": JsonSchema(_strings(200)),
        "a schema that is itself": JsonSchema({"$ref": "#"}),
        "two schemas that are each other": JsonSchema(
            {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
        ),
        "18 alternatives multiplied": JsonSchema({"allOf": pairs(18)}),
        "an empty expression": Regex(""),
        "foo**": Regex("foo**"),
    }


def _regexes() -> dict[str, Constraint]:
    return {
        "an exploding automaton with a boundary": Regex(r"(a|b)*a(a|b){24}\b"),
        "an exploding automaton in a schema": JsonSchema({"type": "string", "pattern": "(a|b)*a(a|b){24}"}),
        "expressions that explode together": JsonSchema(
            {"type": "string", "allOf": [{"pattern": f"({a}|{b})*{a}(a|b){{24}}"} for a in "ab" for b in "cd"]}
        ),
        "an expression of 60,000 characters": Regex("(a|b|c)?" * 7_500),
        "2,000 groups": Regex("(" * 2_000 + "a" + ")" * 2_000),
        "all of Unicode 500 times": Regex(r"[\s\S]{0,500}x[\s\S]{500}"),
        "10,000 of any character": JsonSchema({"type": "string", "pattern": "^(.a|b.){0,9999}$"}),
        "a look-ahead for each place": Regex("".join(f"(?=.{{{i}}}a)" for i in range(30)) + ".*"),
        "nested look-aheads": Regex("(?=.*a" * 20 + ")" * 20 + ".*"),
        "a negative look-ahead that explodes": Regex("(?!(a|b)*a(a|b){24}$)[ab]{30}"),
        "60 overlapping patterns": JsonSchema(
            {"type": "object", "patternProperties": {f"{i % 10}.*{i}": {"minimum": i} for i in range(60)}}
        ),
        "60 exploding patterns": JsonSchema(
            {"type": "object", "patternProperties": {f"^(a|b)*a(a|b){{{i}}}$": {"const": i} for i in range(1, 61)}}
        ),
    }


def _schemas() -> dict[str, Constraint]:
    some = {"anyOf": [{"properties": {f"p{i}": {"const": i}}, "required": [f"p{i}"]} for i in range(8)]}
    other = {"oneOf": [{"properties": {f"q{i}": {"const": i}}, "required": [f"q{i}"]} for i in range(8)]}
    conditions = [
        {
            "if": {"properties": {f"c{i}": {"const": 1}}},
            "then": {"required": [f"t{i}"]},
            "else": {"required": [f"e{i}"]},
        }
        for i in range(24)
    ]
    return {
        "3,000 values": JsonSchema({"enum": [f"v{i}" for i in range(3_000)]}),
        "3,000 long values": JsonSchema({"enum": [f"{i}" * 15 for i in range(3_000)]}),
        "7 levels of doubling": JsonSchema(doubled(7)),
        "9 alternatives multiplied": JsonSchema({"allOf": pairs(9)}),
        "18 dependencies": JsonSchema({"dependentRequired": {f"a{i}": [f"b{i}"] for i in range(18)}}),
        "a chain of conditions": JsonSchema({"type": "object", "allOf": conditions}),
        "conditions in conditions": JsonSchema(_conditions(9)),
        "alternatives by alternatives by conditions": JsonSchema({"allOf": [some, other, *conditions[:3]]}),
        "a not of everything": JsonSchema({"not": {"allOf": [some, other, {"not": some}]}}),
        "200 unique items": JsonSchema({"type": "array", "uniqueItems": True, "maxItems": 200}),
        "unique items of 1,000 values": JsonSchema(
            {"type": "array", "uniqueItems": True, "items": {"enum": list(range(1_000))}, "minItems": 900}
        ),
        "500 of at least 250 properties": JsonSchema({**_strings(500), "minProperties": 250}),
        "a multiple of many": JsonSchema({"type": "integer", "allOf": [{"multipleOf": n} for n in (97, 89, 83, 79)]}),
        "a multiple of a trillionth": JsonSchema({"type": "number", "multipleOf": 1e-12, "minimum": 0.5}),
        "a number of 300 digits": JsonSchema({"type": "integer", "minimum": 10**300, "maximum": 10**301}),
        "9,999 prefix items": JsonSchema({"type": "array", "prefixItems": [{"type": "integer"}] * 9_999}),
        "contains, 1,000 times": JsonSchema(
            {"type": "array", "contains": {"const": 1}, "minContains": 1_000, "maxContains": 2_000}
        ),
        "2,000 choices": Choice(tuple(map(str, range(2_000)))),
        "1,000 long choices": Choice(tuple(f"{'ab' * 30}{i}" for i in range(1_000))),
    }


def _recursive() -> dict[str, Constraint]:
    fan = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 3} for i in range(20)}
    pyramid = {
        f"d{i}": {"properties": {side: {"$ref": f"#/$defs/d{i + 1}"} for side in "ab"}, "unevaluatedProperties": False}
        for i in range(25)
    }
    web = {
        f"d{i}": {"type": "object", "properties": {f"p{j}": {"$ref": f"#/$defs/d{j}"} for j in range(30)}}
        for i in range(30)
    }
    return {
        "a fan of references": JsonSchema({"not": {"$ref": "#/$defs/d0"}, "$defs": fan | {"d20": {"type": "null"}}}),
        "a pyramid of references": JsonSchema(
            {"allOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d1"}], "$defs": pyramid | {"d25": {"type": "null"}}}
        ),
        "a web of references": JsonSchema({"$ref": "#/$defs/d0", "$defs": web}),
        "a web of references, twice": JsonSchema(
            {"allOf": [{"$ref": "#/$defs/d0"}, {"$ref": "#/$defs/d1"}], "$defs": web}
        ),
        "a chain of 1,000 references": JsonSchema(
            {
                "$ref": "#/$defs/d0",
                "$defs": {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(1_000)} | {"d1000": {"type": "null"}},
            }
        ),
        "a recursion through not": JsonSchema({"$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
    }


def _grammars() -> dict[str, Constraint]:
    letters = "".join(f'r{i} ::= r{i + 1} r{i + 1} | "a"\n' for i in range(40))
    return {
        "a repetition of 10,000": Grammar("root ::= [a-z]{1,10000}"),
        "a repetition of 9,999 rules": Grammar('root ::= x{1,9999} "b"\nx ::= [a-z] | "yy"'),
        "repetitions in repetitions": Grammar("root ::= (([a-z]{1,100} | [0-9]{3,90}){1,100}){1,100}"),
        "a repetition of nothing": Grammar('root ::= ("a"?){0,9999} "b"'),
        "a grammar of a megabyte": Grammar('root ::= "a"' + " " * 10**6),
        "40 doublings": Grammar("root ::= r0\n" + letters + 'r40 ::= "a"\n'),
        "ambiguous sums": Grammar('root ::= root "+" root | root root | [0-9] | ""'),
        "1,000 character classes": Grammar("root ::= " + " ".join(f"[a-z{i % 10}]" for i in range(1_000))),
        "no grammar": Grammar("%%%"),
        "Lark: 40 doublings": Grammar(
            "start: r0\n" + "".join(f'r{i}: r{i + 1} r{i + 1} | "a"\n' for i in range(40)) + 'r40: "a"\n', "lark"
        ),
        "Lark: ambiguous sums": Grammar('start: start "+" start | start start | /[0-9]/ | ""', "lark"),
        "Lark: a repetition of rules": Grammar('start: x{1,9999} "b"\nx: /[a-z]/ | "yy"', "lark"),
        "Lark: exploding terminals": Grammar(
            "start: (A | B | C)*\n"
            + "".join(f"{n}: /(a|b)*{c}(a|b){{24}}/\n" for n, c in zip("ABC", "aba", strict=True)),
            "lark",
        ),
        "Lark: 1,000 rules": Grammar(
            "start: "
            + " | ".join(f"r{i}" for i in range(1_000))
            + "\n"
            + "".join(f"r{i}: /x{i}+/\n" for i in range(1_000)),
            "lark",
        ),
        "Lark: intersections": Grammar("start: X\nX: " + " & ".join(f"/(.*{c}){{9}}.*/" for c in "abcdefgh"), "lark"),
    }


def _tools() -> dict[str, Constraint]:
    return {
        "128 tools": ToolCalls(tuple(Tool(f"f{i}", "", _strings(20)) for i in range(128)), "required"),
        "tools of alternatives": ToolCalls(tuple(Tool(f"f{i}", "", doubled(4)) for i in range(20)), "required"),
    }


def nested(depth: int) -> Any:
    """An object in an object, `depth` times."""
    schema: Any = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def doubled(levels: int) -> Any:
    """Two objects that hold the next level, written out."""
    schema: Any = {"type": "string"}
    for level in range(levels):
        schema = {"anyOf": [{"type": "object", "properties": {f"{side}{level}": schema}} for side in "ab"]}
    return schema


def pairs(n: int) -> list[Any]:
    """Parts of an allOf that multiply to 2 ** n."""
    return [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(n)]


def _strings(n: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(n)}}


def _conditions(depth: int) -> Any:
    schema: Any = {"type": "object"}
    for i in range(depth):
        schema = {"if": {"required": [f"c{i}"]}, "then": schema, "else": {"required": [f"e{i}"], "allOf": [schema]}}
    return schema
