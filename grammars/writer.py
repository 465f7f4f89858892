"""Writes solved expressions as schemas of the normal form (`normal_form.py`), each set of them once.

A set that needs a reference to be followed becomes a definition, named once: that ends recursion. Everything else is
written where it stands.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from grammars.array_writer import ArrayWriter
from grammars.bounds import move_narrow_exclusions
from grammars.errors import ConstraintRefused
from grammars.expressions import NOTHING, All, AnyOf, Conjunction, Expression, OneOf, Ref, TooMany, Unheld, refers
from grammars.normal_form import TYPES, Schema, disjunction, subschemas
from grammars.object_writer import ObjectWriter
from grammars.plain import BY_TYPE, KINDS, Plain
from grammars.plain_numbers import Numbers
from grammars.solver import Alternative, Solver

_MAX_TRIALS: Final = 8  # trials inside trials
_SHARED: Final = 160  # characters of a node that is named once it is met a second time


class Writer:
    """The definitions of one document under construction.

    doubts: (keyword, pointer) of each `oneOf` that is left for the backend to prove.
    """

    def __init__(self, solver: Solver) -> None:
        self.solver = solver
        self.definitions: dict[str, Schema] = {}
        self.doubts: list[tuple[str, str]] = []
        self._names: dict[frozenset[Expression], str] = {}
        self._waiting: deque[tuple[str, Conjunction]] = deque()
        self._written: dict[frozenset[Expression], Schema] = {}
        self._n_trials = 0
        self._arrays, self._objects = ArrayWriter(self), ObjectWriter(self)

    def document(self, schema: Conjunction) -> Schema:
        """`schema` with all definitions that it needs in `$defs`. Raises Unheld and ConstraintRefused."""
        root = self.write(schema)
        self._finish()
        while impossible := [key for key, name in self._names.items() if self.definitions[name] is False]:
            # A definition that proved to be nothing when it was written: what needs it is written anew without it.
            self.solver.learn(impossible)
            self.definitions, self.doubts, self._names, self._written = {}, [], {}, {}
            root = self.write(schema)
            self._finish()
        if isinstance(root, bool):
            return root
        reached: dict[str, Schema] = {}
        waiting: list[Schema] = [root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict) and "$ref" in node:
                name = node["$ref"].removeprefix("#/$defs/")
                if name not in reached:
                    reached[name] = self.definitions[name]
                    waiting.append(reached[name])
            waiting.extend(subschemas(node))
        if not reached:
            return root
        return {**root, "$defs": {name: reached[name] for name in self.definitions if name in reached}}

    def write(self, schema: Conjunction) -> Schema:
        """One schema of the normal form for all of `schema`."""
        bare = self.bare(schema)
        if bare is None:
            return False
        if not bare:
            return True
        if len(bare) == 1 and isinstance(bare[0], AnyOf):
            return self._joined([self.write((member,)) for member in bare[0].members])
        if any(map(refers, bare)) and not (len(bare) == 1 and isinstance(bare[0], OneOf)):
            return self._named(bare)
        return self._inline(bare)

    def bare(self, schema: Conjunction) -> Conjunction | None:
        """The members of `schema` with `allOf` opened, each once; None where one of them is nothing at all."""
        out: dict[Expression, None] = {}
        stack = list(reversed(schema))
        while stack:
            member = stack.pop()
            if isinstance(member, All):
                stack.extend(reversed(member.members))
            elif member is NOTHING or (isinstance(member, AnyOf) and not member.members):
                return None
            elif isinstance(member, AnyOf) and len(member.members) == 1:
                stack.append(member.members[0])
            else:
                out[member] = None
        return tuple(out)

    def _named(self, schema: Conjunction) -> Schema:
        key = frozenset(schema)
        if key not in self._names:
            if self.solver.is_empty(schema):
                return False
            self._names[key] = f"d{len(self._names)}"
            self.definitions[self._names[key]] = False  # its place in the order
            self._waiting.append((self._names[key], schema))
        return {"$ref": f"#/$defs/{self._names[key]}"}

    def _finish(self) -> None:
        while self._waiting:
            name, schema = self._waiting.popleft()
            self.definitions[name] = self._body(schema)

    def _body(self, schema: Conjunction) -> Schema:
        """What a definition says: its reference is followed, not named once more."""
        seen: set[Ref] = set()
        while len(schema) == 1 and isinstance(ref := schema[0], Ref):
            if ref in seen:
                raise ConstraintRefused(ref.keyword, ref.pointer, "leads back to itself: break the circle")
            seen.add(ref)
            target = self.bare((self.solver.resolve(ref),))
            if target is None:
                return False
            schema = target
        if not schema:
            return True
        if len(schema) == 1 and isinstance(schema[0], AnyOf):
            return self._joined([self.write((member,)) for member in schema[0].members])
        return self._inline(schema)

    def _inline(self, schema: Conjunction) -> Schema:
        key = frozenset(schema)
        found = self._written.get(key)
        if found is None:
            first = schema[0]
            found = self._apart(first) if len(schema) == 1 and isinstance(first, OneOf) else self._solved(schema)
            self._written[key] = found
        elif isinstance(found, dict) and "$ref" not in found and len(str(found)) > _SHARED:
            name = self._names.setdefault(key, f"d{len(self._names)}")
            self.definitions[name] = found
            return {"$ref": f"#/$defs/{name}"}
        return found

    def _solved(self, schema: Conjunction) -> Schema:
        """The alternatives of `schema`; where some cannot be written, a `oneOf` in it is left to the backend."""
        if not _holds_one_of(schema):
            return self._alternatives(schema)
        tried = self._trial(lambda: self._alternatives(schema))
        if not isinstance(tried, Exception):
            return tried
        opened = self._opened(schema)
        choices: list[OneOf | AnyOf] = [e for e in opened if isinstance(e, OneOf)]
        choices = choices or [e for e in opened if isinstance(e, AnyOf) and _holds_one_of((e,))]
        if not choices:
            raise tried
        choice = choices[0]
        rest = tuple(e for e in opened if e is not choice)
        members = [self._solved((*rest, member)) for member in choice.members]
        return self._doubted(choice, members) if isinstance(choice, OneOf) else self._joined(members)

    def _alternatives(self, schema: Conjunction) -> Schema:
        return self._joined([node for one in self.solver.alternatives(schema) for node in self.nodes(one)])

    def _apart(self, choice: OneOf) -> Schema:
        """A `oneOf` that stands alone: its members keep their references where they are disjoint."""
        members = tuple(m for m in choice.members if not self.solver.is_empty((m,)))

        def alone() -> Schema:
            meets = self.solver.meets(members)
            apart = [
                (member, *(self.solver.opposite((members[j],), "oneOf", choice.pointer) for j in meets[i]))
                for i, member in enumerate(members)
            ]
            return self._joined([self.write(one) for one in apart])

        tried = self._trial(alone)
        if isinstance(tried, Exception):
            return self._doubted(choice, [self.write((member,)) for member in members])
        return tried

    def _doubted(self, choice: OneOf, members: list[Schema]) -> Schema:
        kept = [member for member in members if member is not False]
        if len(kept) < 2:
            return kept[0] if kept else False
        self.doubts.append(("oneOf", choice.pointer))
        return {"oneOf": kept}

    def _trial(self, write: Callable[[], Schema]) -> Schema | Unheld | TooMany:
        """What `write` returns, with all definitions that it needs; or why it failed, and nothing is changed then."""
        if self._n_trials == _MAX_TRIALS:
            return write()
        before = (dict(self.definitions), list(self.doubts), dict(self._names), dict(self._written))
        waiting, self._waiting = self._waiting, deque()
        self._n_trials += 1
        try:
            found = write()
            self._finish()
        except (Unheld, TooMany) as error:
            self.definitions, self.doubts, self._names, self._written = before
            return error
        finally:
            self._n_trials -= 1
            self._waiting = waiting
        return found

    def _opened(self, schema: Conjunction) -> list[Expression]:
        """`schema` with references followed and `not` pushed in, until only plain assertions and choices are left."""
        out: dict[Expression, None] = {}
        stack: list[Expression] = list(reversed(schema))
        while stack:
            self.solver.step()
            member = stack.pop()
            opened = self.solver.opened(member)
            if opened is None:
                out[member] = None
            else:
                stack.extend(reversed(opened))
        return list(out)

    def _joined(self, members: list[Schema]) -> Schema:
        """`anyOf` of the members, flat and each once."""
        flat: dict[str, Schema] = {}
        for member in members:
            inner = member["anyOf"] if isinstance(member, dict) and "anyOf" in member else [member]
            flat |= {repr(one): one for one in inner}
        return disjunction(list(flat.values()))

    def nodes(self, alternative: Alternative) -> list[Schema]:
        """An alternative as nodes of the normal form: one, or more where a type needs several. Raises Unheld."""
        if alternative.values is not None:
            return [{"enum": list(alternative.values)}]
        plain = alternative.plain
        kinds = self.solver.kinds(plain)
        if kinds == KINDS and not (plain.numbers or plain.texts or plain.arrays or plain.objects):
            return [True]
        try:
            variants = {name: list(self._variants(name, plain, kinds)) for name in TYPES if kinds & BY_TYPE[name]}
        except Unheld as error:
            raise Unheld(error.keyword, error.pointer or plain.pointer, error.reason) from error
        whole: dict[str, Any] = {"type": []}
        others: list[Schema] = []
        for several in variants.values():
            if len(several) == 1 and "enum" not in several[0]:
                rest = dict(several[0])
                whole["type"] += rest.pop("type")
                if "allOf" in rest and "allOf" in whole:
                    rest["allOf"] = [*whole["allOf"], *rest["allOf"]]
                whole.update(rest)
            else:
                others += several
        return [whole, *others] if whole["type"] else others

    def _variants(self, name: str, plain: Plain, kinds: frozenset[str]) -> Iterator[dict[str, Any]]:
        """Nodes that together hold the values of one type."""
        match name:
            case "boolean" if len(kinds & BY_TYPE[name]) == 1:
                yield {"enum": ["true" in kinds]}
            case "number" if plain.numbers is not None or "integer" not in kinds:
                for node in (plain.numbers or Numbers()).written(kinds):
                    move_narrow_exclusions(node, plain.pointer)
                    yield node
            case "number":
                yield {"type": ["number" if "fraction" in kinds else "integer"]}
            case "string" if plain.texts is not None:
                for node in plain.texts.written():
                    yield {"type": ["string"], **node}
            case "array" if plain.arrays is not None:
                for node in self._arrays.written(plain.arrays):
                    yield {"type": ["array"], **node}
            case "object" if plain.objects is not None:
                for node in self._objects.written(plain.objects):
                    yield {"type": ["object"], **node}
            case _:
                yield {"type": [name]}


def _holds_one_of(schema: Conjunction) -> bool:
    return any(
        isinstance(e, OneOf) or (isinstance(e, AnyOf | All) and _holds_one_of(e.members)) or isinstance(e, Ref)
        for e in schema
    )
