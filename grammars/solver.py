"""Alternatives: what a set of expressions says of one value, as assertions that each hold or not on their own.

A conjunction is settled: references followed, `allOf` opened, `not` pushed inwards, plain assertions met. What remains
are choices (`anyOf`, `oneOf`); they are multiplied out, and an alternative is dropped as soon as no value satisfies it.
The schemas of members and items stay sets of expressions, all made of parts of the client's document, so that there
are finitely many and a recursive schema comes back to a set already seen (as derivatives of expressions do: Brzozowski
1964; the law: the same values satisfy the set and its alternatives).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Final

from grammars.errors import ConstraintRefused
from grammars.expressions import (
    ANYTHING,
    NOTHING,
    All,
    AnyOf,
    Conjunction,
    Expression,
    Not,
    OneOf,
    Ref,
    TooMany,
    Values,
)
from grammars.limits import Limits
from grammars.negation import complement, without_values
from grammars.plain import Plain
from grammars.plain_arrays import both
from grammars.plain_objects import Objects
from grammars.satisfaction import satisfies
from grammars.tags import pairs

_MAX_NEGATED: Final = 32  # members of a `oneOf` under `not`, whose pairs are all looked at
_MAX_DEPTH: Final = 12  # of members inside members, when looking for a contradiction
Place = tuple[int, ...]
Chain = frozenset[tuple[Ref, bool]]  # the references followed so far, and whether under a `not`
_Todo = list[tuple[Place, Expression, Chain]]
_TOP: Final = Plain()


@dataclass(frozen=True, slots=True, eq=False)
class Alternative:
    """A plain assertion, or the values that satisfy it where they are listed."""

    plain: Plain
    values: tuple[Any, ...] | None = None


@dataclass(slots=True)
class _State:
    """One alternative in the making; choices are still open."""

    plain: Plain = _TOP
    values: tuple[Any, ...] | None = None
    choices: list[tuple[Place, Expression, Chain]] = field(default_factory=list)
    settled: set[Expression] = field(default_factory=set)

    def copy(self) -> "_State":
        return _State(self.plain, self.values, list(self.choices), set(self.settled))


class Solver:
    """Settles conjunctions over the expressions that `resolve` gives for references."""

    def __init__(self, resolve: Callable[[Ref], Expression], limits: Limits) -> None:
        self.resolve, self.limits = resolve, limits
        self.steps = 0
        self._alternatives: dict[frozenset[Expression], tuple[Alternative, ...]] = {}
        self._opposites: dict[Conjunction, Expression] = {}
        self._pushed: dict[Expression, Expression] = {}
        self._empty: dict[frozenset[Expression], bool] = {}
        self._under_way: set[frozenset[Expression]] = set()
        self._pointer = ("schema", "")  # the last place with a choice, to name the cause when the budget ends

    def alternatives(self, schema: Conjunction) -> tuple[Alternative, ...]:
        """Assertions of which a value satisfies at least one exactly when it satisfies `schema`.

        Raises ConstraintRefused beyond the limits and for a reference that leads to itself.
        """
        key = frozenset(schema)
        found = self._alternatives.get(key)
        if found is None:
            if len(schema) == 1 and isinstance(schema[0], Plain):
                self.step()
                kinds = self.kinds(schema[0])
                plain = schema[0] if kinds == schema[0].kinds else schema[0].meet(Plain(kinds))
                self._alternatives[key] = (Alternative(plain),) if kinds else ()
                return self._alternatives[key]
            found = tuple(self._expand(_State(), [((i,), member, frozenset()) for i, member in enumerate(schema)]))
            self._alternatives[key] = found
        return found

    def opposite(self, schema: Conjunction, keyword: str = "not", pointer: str = "") -> Expression:
        """The expression that holds where `schema` does not; the same one for the same conjunction."""
        if schema not in self._opposites:
            members = tuple(self._not(member, keyword, pointer) for member in schema)
            self._opposites[schema] = members[0] if len(members) == 1 else AnyOf(members, keyword, pointer)
        return self._opposites[schema]

    def _not(self, member: Expression, keyword: str, pointer: str) -> Expression:
        if isinstance(member, Not):
            return member.member
        if member is ANYTHING:
            return NOTHING
        if member is NOTHING:
            return ANYTHING
        if (member,) not in self._opposites:
            self._opposites[member,] = Not(member, keyword, pointer)
        return self._opposites[member,]

    def is_empty(self, schema: Conjunction) -> bool:
        """True only when no value satisfies `schema`; False also means "not proved"."""
        if not schema:
            return False
        key = frozenset(schema)
        found = self._empty.get(key)
        if found is not None:
            return found
        if len(self._under_way) == _MAX_DEPTH or key in self._under_way:
            return False
        self._under_way.add(key)
        try:
            self.step()
            match schema:
                case (AnyOf() as choice,):  # each member for itself: nothing is multiplied out
                    found = all(self.is_empty((member,)) for member in choice.members)
                case (Ref() as ref,):
                    found = self.is_empty((self.resolve(ref),))
                case _:
                    found = all(self._is_empty(alternative) for alternative in self.alternatives(schema))
        except TooMany:
            found = False
        finally:
            self._under_way.discard(key)
        self._empty[key] = found
        return found

    def learn(self, empty: Iterable[frozenset[Expression]]) -> None:
        """Take it as proved that nothing satisfies these, which shows only when they are written."""
        proved = {key: True for key, is_empty in self._empty.items() if is_empty}
        self._empty = {**proved, **dict.fromkeys(empty, True)}
        self._alternatives.clear()

    def _is_empty(self, alternative: Alternative) -> bool:
        if alternative.values is not None:
            return not alternative.values
        return not self.kinds(alternative.plain)

    def are_disjoint(self, a: Alternative, b: Alternative) -> bool:
        """True only when no value satisfies both; False also means "not proved"."""
        for one, other in ((a, b), (b, a)):
            if one.values is not None:
                return not any(self.admits(other, value) for value in one.values)
        self.step()
        kinds = a.plain.kinds & b.plain.kinds
        if not kinds:
            return True
        one_of, other_of = a.plain.objects, b.plain.objects
        if kinds == {"object"} and one_of is not None and other_of is not None:  # most often it is a tag that differs
            tags = [name for name in one_of.required if name in other_of.required]
            if any(self.is_empty(both(one_of.of(name), other_of.of(name))) for name in tags):
                return True
        return not self.kinds(a.plain.meet(b.plain))

    def admits(self, alternative: Alternative, value: Any) -> bool:
        """Whether `value` satisfies the alternative."""
        if not satisfies(value, (alternative.plain,), self.resolve):
            return False
        return alternative.values is None or satisfies(value, (Values(alternative.values, ""),), self.resolve)

    def kinds(self, plain: Plain) -> frozenset[str]:
        """The kinds that a value of `plain` may have: contradictions are looked for, no fewer kinds than there are."""
        kinds = plain.kinds
        if plain.numbers is not None and kinds & {"integer", "fraction"}:
            kinds = (kinds - {"integer", "fraction"}) | plain.numbers.kinds(kinds)
        if plain.texts is not None and "string" in kinds and plain.texts.is_empty():
            kinds -= {"string"}
        if plain.arrays is not None and "array" in kinds:
            arrays = plain.arrays
            most = arrays.most
            if (
                (most is not None and most < arrays.fewest)
                or any(self.is_empty(arrays.at(i)) for i in range(min(arrays.fewest, len(arrays.prefix) + 1)))
                or any(most is not None and counted.least > most for counted in arrays.contained)
                or any(counted.most is not None and counted.least > counted.most for counted in arrays.contained)
                or any(counted.least and self.is_empty(counted.schema) for counted in arrays.contained)
                or (arrays.repeats is not None and (arrays.is_unique or (most is not None and most < 2)))
            ):
                kinds -= {"array"}
        if plain.objects is not None and "object" in kinds:
            objects = plain.objects
            self.step(1 + len(objects.required) * len(objects.layers) // 16)
            if (
                (objects.most is not None and max(objects.fewest, len(objects.required)) > objects.most)
                or any(self.is_empty(objects.of(name)) for name in objects.required)
                or (objects.names and not all(self._may_be_called(objects, name) for name in objects.required))
                or (objects.some and objects.most == 0)
            ):
                kinds -= {"object"}
        return kinds

    def _may_be_called(self, objects: Objects, name: str) -> bool:
        return satisfies(name, objects.names, self.resolve)

    def meets(self, members: Conjunction) -> list[list[int]]:
        """For each member the positions of the others that some value may satisfy together with it."""
        return self._meets([self.alternatives((member,)) for member in members])

    def _meets(self, ways: Sequence[Sequence[Alternative]]) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in ways]
        # Listed values have no tag in sight: `_TOP` stands for them, which may meet anything.
        plain = [[one.plain if one.values is None else _TOP for one in way] for way in ways]
        for i, j in pairs(plain, self.resolve):
            if not all(self.are_disjoint(a, b) for a in ways[i] for b in ways[j]):
                found[i].append(j)
                found[j].append(i)
        return found

    def opened(self, member: Expression) -> Conjunction | None:
        """`member` one step further: what a reference or a `not` stands for; None for assertions and choices."""
        match member:
            case All():
                return member.members
            case Ref():
                return (self.resolve(member),)
            case Not():
                return (self._push(member),)
            case AnyOf() if len(member.members) == 1:
                return member.members
        return None

    def step(self, n: int = 1) -> None:
        """Count `n` units of work. Raises ConstraintRefused at the end of the budget."""
        self.steps += n
        if self.steps > self.limits.steps:
            keyword, pointer = self._pointer
            raise ConstraintRefused(keyword, pointer, "takes too many steps to rewrite: simplify what it combines")

    def _settle(self, state: _State, todo: _Todo) -> bool:
        """Let everything in `todo` that is no choice hold in `state`. False: nothing satisfies it any more."""
        todo = todo[::-1]
        while todo:
            place, expression, chain = todo.pop()
            if expression in state.settled:
                continue
            self.step()
            if not isinstance(expression, Ref):
                state.settled.add(expression)
            match expression:
                case Plain():
                    state.plain = state.plain.meet(_placed(expression, place))
                    if not state.plain.kinds:
                        return False
                case Values():
                    if state.values is None:
                        state.values = expression.values
                    else:
                        state.values = tuple(v for v in state.values if satisfies(v, (expression,), self.resolve))
                    if not state.values:
                        return False
                case All():
                    members = [((*place, i), member, chain) for i, member in enumerate(expression.members)]
                    todo.extend(reversed(members))
                case AnyOf() if len(expression.members) < 2:
                    if not expression.members:
                        return False
                    todo.append((place, expression.members[0], chain))
                case AnyOf() | OneOf():
                    state.choices.append((place, expression, chain))
                case Ref():
                    self._follow(expression, place, chain, todo, negated=False)
                case Not():
                    if isinstance(expression.member, Ref):
                        self._follow(expression.member, place, chain, todo, negated=True)
                    else:
                        todo.append((place, self._push(expression), chain))
        return True

    def _follow(self, ref: Ref, place: Place, chain: Chain, todo: _Todo, *, negated: bool) -> None:
        if (ref, negated) in chain:
            raise ConstraintRefused(ref.keyword, ref.pointer, "leads back to itself without an end: break the circle")
        target = self.resolve(ref)
        if negated:
            target = self._not(target, "not", ref.pointer)
        todo.append((place, target, chain | {(ref, negated)}))

    def _push(self, expression: Not) -> Expression:
        """The same, with `not` one step further in."""
        if expression not in self._pushed:
            self._pushed[expression] = self._pushed_in(expression.member, expression.keyword, expression.pointer)
        return self._pushed[expression]

    def _pushed_in(self, member: Expression, keyword: str, pointer: str) -> Expression:
        def opposite(schema: Conjunction) -> Expression:
            return self.opposite(schema, keyword, pointer)

        match member:
            case Plain():
                return complement(member, opposite, keyword, pointer)
            case Values():
                return without_values(member, opposite, pointer)
            case All():
                return AnyOf(tuple(self._not(m, keyword, pointer) for m in member.members), keyword, pointer)
            case AnyOf():
                return All(tuple(self._not(m, keyword, pointer) for m in member.members))
            case OneOf():
                none = All(tuple(self._not(m, keyword, pointer) for m in member.members))
                if len(member.members) > _MAX_NEGATED:
                    raise ConstraintRefused(
                        keyword, pointer, f"negates a oneOf of more than {_MAX_NEGATED} members: say what is allowed"
                    )
                pairs = (All(pair) for pair in combinations(member.members, 2))
                return AnyOf((none, *pairs), keyword, pointer)
            case Not():
                return member.member
            case Ref():
                return self._not(self.resolve(member), keyword, pointer)

    def _expand(self, state: _State, todo: _Todo) -> Iterable[Alternative]:
        """All alternatives of `state` with `todo`, in the order of the choices."""
        found: list[Alternative] = []
        stack = [(state, todo)]
        while stack:
            state, todo = stack.pop()
            if not self._settle(state, todo) or not self._is_live(state):
                continue
            if not state.choices:
                found.append(Alternative(state.plain, state.values))
                if len(found) > self.limits.combinations:
                    keyword, pointer = self._pointer
                    raise TooMany(
                        keyword, pointer, f"multiplies out to more than {self.limits.combinations} alternatives: "
                        "simplify it"
                    )  # fmt: skip
                continue
            if state.values is not None:
                left = tuple(v for v in state.values if all(self._satisfies(v, c) for _, c, _ in state.choices))
                if left:
                    found.append(Alternative(state.plain, left))
                continue
            at = min(range(len(state.choices)), key=lambda i: len(_members(state.choices[i][1])))
            place, choice, chain = state.choices.pop(at)
            self._pointer = (choice.keyword if isinstance(choice, AnyOf) else "oneOf", _pointer(choice))
            if isinstance(choice, OneOf):
                branches = self._apart(state, choice, place, chain)
            else:
                members = enumerate(_members(choice))
                branches = [(state.copy(), [((*place, i), member, chain)]) for i, member in members]
            stack.extend(reversed(branches))
        return found

    def _satisfies(self, value: Any, expression: Expression) -> bool:
        return satisfies(value, (expression,), self.resolve)

    def _is_live(self, state: _State) -> bool:
        """Whether some value may satisfy the state so far."""
        if state.values is not None:
            state.values = tuple(v for v in state.values if satisfies(v, (state.plain,), self.resolve))
            return bool(state.values)
        kinds = self.kinds(state.plain)
        if kinds != state.plain.kinds:
            state.plain = state.plain.meet(Plain(kinds))
        return bool(kinds)

    def _apart(self, state: _State, choice: OneOf, place: Place, chain: Chain) -> list[tuple[_State, _Todo]]:
        """The members of a `oneOf`, each with the negation of those that it may meet where `state` holds."""
        known = state.copy()
        known.choices = []
        ways = [
            list(self._expand(known.copy(), [((*place, i), member, chain)])) for i, member in enumerate(choice.members)
        ]
        meets = self._meets(ways)
        branches: list[tuple[_State, _Todo]] = []
        for i, way in enumerate(ways):
            others = [self._not(choice.members[j], "oneOf", choice.pointer) for j in meets[i]]
            todo = [((*place, i), other, chain) for other in others]
            branches += [(_State(one.plain, one.values, list(state.choices)), list(todo)) for one in way]
        return branches


def _members(choice: Expression) -> Conjunction:
    return choice.members if isinstance(choice, AnyOf | OneOf) else ()


def _pointer(choice: Expression) -> str:
    return choice.pointer if isinstance(choice, AnyOf | OneOf) else ""


def _placed(plain: Plain, place: Place) -> Plain:
    """The same, with its layers of members marked by where they stand, once."""
    if plain.objects is None or all(layer.place for layer in plain.objects.layers):
        return plain
    layers = tuple(replace(layer, place=place) for layer in plain.objects.layers)
    return replace(plain, objects=replace(plain.objects, layers=layers))
