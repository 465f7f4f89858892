"""Writes what is said of objects as keywords of the normal form."""

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from grammars import automata
from grammars.expressions import NOTHING, Conjunction, Unheld
from grammars.normal_form import Schema, every
from grammars.plain import Plain
from grammars.plain_arrays import both
from grammars.plain_objects import LAST, Layer, Objects, Some
from grammars.plain_texts import matches
from grammars.regex import all_but
from grammars.regex_syntax import RegexRefused
from grammars.satisfaction import satisfies

if TYPE_CHECKING:
    from grammars.writer import Writer

_MAX_REGIONS: Final = 64  # languages of names that patterns are split into
_MAX_OPTIONAL: Final = 4  # names that are tried as present and as absent
_MAX_LISTED: Final = 64  # names that a pattern may stand for
_TEXT: Final = Plain(frozenset({"string"}))


class ObjectWriter:
    """Writes the objects of one document."""

    def __init__(self, writer: "Writer") -> None:
        self._writer = writer

    def written(self, objects: Objects) -> list[dict[str, Any]]:
        """Nodes, without `type`, that together hold these objects. Raises Unheld."""
        layers = list(objects.layers)
        if objects.names and (layer := self._named(objects.names)) is not None:
            layers.append(layer)
        layers.sort(key=lambda layer: layer.place)
        pieces = [replace(objects, layers=tuple(layers), names=(), some=())]
        for some in objects.some:
            pieces = [way for piece in pieces for way in self._having(piece, some)]
        return [node for piece in pieces if (node := self._node(piece)) is not None]

    def _named(self, names: Conjunction) -> Layer | None:
        """A layer that admits exactly the members whose names satisfy `names`; None: all of them."""
        listed: dict[str, None] = {}
        patterns: list[str] = []
        for one in self._writer.solver.alternatives((*names, _TEXT)):
            if one.values is not None:
                listed |= dict.fromkeys(one.values)
            elif one.plain.texts is None:
                return None
            else:
                try:
                    pattern = one.plain.texts.pattern()
                except RegexRefused as error:
                    raise Unheld("propertyNames", "", f"{error}") from error
                if pattern is None:
                    continue
                patterns.append(pattern)
        properties: dict[str, Conjunction] = dict.fromkeys(listed, ())
        return Layer(properties, dict.fromkeys(patterns, ()), (NOTHING,), LAST)

    def _known(self, objects: Objects) -> list[str] | None:
        """All names that a member may have; None where they can't be listed."""
        names = dict.fromkeys(name for layer in objects.layers for name in layer.properties)
        solver = self._writer.solver
        if not solver.is_empty(_additional(objects)):
            return None
        for pattern, schema in self._regions(objects).items():
            if not solver.is_empty(schema):
                try:
                    found = automata.texts(pattern, _MAX_LISTED)
                except RegexRefused:
                    return None
                if found is None:
                    return None
                names |= dict.fromkeys(found)
        return [name for name in names if not solver.is_empty(objects.of(name))]

    def _having(self, objects: Objects, some: Some) -> list[Objects]:
        """The ways in which one of the members is what `some` demands."""
        solver = self._writer.solver
        known = self._known(objects)
        if known is not None:
            ways = []
            for name in known:
                if some.reaches(name) and satisfies(name, some.name, solver.resolve):
                    if not some.schema and name in objects.required:
                        return [objects]
                    if not solver.is_empty(both(objects.of(name), some.schema)):
                        ways.append(objects.meet(Objects((Layer({name: some.schema}, place=LAST),), (name,))))
            return ways
        if some.schema or some.name or some.pattern is not None or some.no_patterns:
            raise Unheld(
                some.keyword, some.pointer, "demands a member of any name, which has no exact form: use `required`"
            )
        if any(name not in some.names for name in objects.required):
            return [objects]
        optional = [
            name
            for name in sorted(some.names)
            if name not in objects.required and not solver.is_empty(objects.of(name))
        ]
        if len(optional) > _MAX_OPTIONAL:
            raise Unheld(
                some.keyword, some.pointer, f"demands a name beside more than {_MAX_OPTIONAL} optional ones: name it"
            )
        ways = []
        for n in range(len(optional) + 1):
            for present in combinations(optional, n):
                absent: dict[str, Conjunction] = {name: (NOTHING,) for name in optional if name not in present}
                n_names = len(objects.required) + n + 1
                ways.append(objects.meet(Objects((Layer(absent, place=LAST),) if absent else (), present, n_names)))
        return ways

    def _regions(self, objects: Objects) -> dict[str, Conjunction]:
        """Languages of names that do not meet, and what is said of their members: patterns cut where they overlap."""
        patterns = list(dict.fromkeys(pattern for layer in objects.layers for pattern in layer.patterns))
        try:
            regions = self._split(patterns)
        except RegexRefused as error:
            raise Unheld("patternProperties", "", f"overlap in a way that {error}: let them be disjoint") from error
        out: dict[str, Conjunction] = {}
        for language, matched in regions:
            schema: Conjunction = ()
            for layer in objects.layers:
                own = [layer.patterns[pattern] for pattern in matched if pattern in layer.patterns]
                for one in own or [layer.additional]:
                    schema = both(schema, one)
            out[language] = schema
        return out

    def _split(self, patterns: list[str]) -> list[tuple[str, tuple[str, ...]]]:
        """Disjoint languages, together the patterns', each with the patterns that match it. Raises RegexRefused."""
        regions: list[tuple[str, tuple[str, ...]]] = []
        for pattern in patterns:
            rest: str | None = pattern
            cut: list[tuple[str, tuple[str, ...]]] = []
            for language, matched in regions:
                self._writer.solver.step(10 + (len(language) + len(rest or "")) // 16)
                if rest is None or automata.are_disjoint(language, rest):
                    cut.append((language, matched))
                    continue
                if automata.includes(pattern, language):
                    cut.append((language, (*matched, pattern)))
                else:
                    cut.append((automata.intersection([language, pattern]), (*matched, pattern)))
                    cut.append((automata.intersection([language, automata.complement(pattern)]), matched))
                if automata.includes(language, rest):
                    rest = None
                else:
                    rest = automata.intersection([rest, automata.complement(language)])
            regions = cut if rest is None else [*cut, (rest, (pattern,))]
            if len(regions) > _MAX_REGIONS:
                raise RegexRefused(f"needs more than {_MAX_REGIONS} languages")
        return regions

    def _node(self, objects: Objects) -> dict[str, Any] | None:
        solver, write = self._writer.solver, self._writer.write
        required = list(objects.required)
        if any(solver.is_empty(objects.of(name)) for name in required):
            return None
        additional: Any = False if solver.is_empty(_additional(objects)) else write(_additional(objects))
        regions: dict[str, Any] = {
            pattern: False if solver.is_empty(schema) else write(schema)
            for pattern, schema in self._regions(objects).items()
        }
        if additional is False:
            regions = {pattern: schema for pattern, schema in regions.items() if schema is not False}
        is_closed = additional is False and not regions
        properties: dict[str, Any] = {}
        for name in dict.fromkeys(name for layer in objects.layers for name in layer.properties):
            schema = objects.of(name)
            properties[name] = False if solver.is_empty(schema) else write(schema)
        if any(properties.get(name) is False for name in required):
            return None  # writing it out showed that it has no value
        # In a closed object a forbidden name says nothing but its place among the names of its sister branches.
        allowed = [name for name, schema in properties.items() if schema is not False]
        regions = {_beside(pattern, schema, properties): schema for pattern, schema in regions.items()}
        fewest, most = objects.fewest, objects.most
        if most is not None and most <= len(required):
            if most < len(required):
                return None
            names = {name: write(objects.of(name)) for name in dict.fromkeys([*properties, *required])}
            properties = {name: schema for name, schema in names.items() if name in objects.required}
            additional, regions, is_closed, most, allowed = False, {}, True, None, list(properties)
        if fewest > len(required) and not is_closed:
            further = _further(regions, additional, fewest + len(properties))
            if further is not None:  # names that can run out are told one by one
                properties |= {name: schema for name, schema in further.items() if name not in properties}
                allowed = [name for name, schema in properties.items() if schema is not False]
                additional, regions, is_closed = False, {}, True
        if is_closed:
            if fewest > len(allowed):
                return None
            if fewest == len(allowed):
                required = allowed
            if most is not None and most >= len(allowed):
                most = None
        if fewest <= len(required):
            fewest = 0
        node: dict[str, Any] = {}
        if properties:
            node["properties"] = properties
        if regions:
            node["patternProperties"] = regions
        if additional is not True:
            node["additionalProperties"] = additional
        if required:
            node["required"] = required
        if fewest:
            node["minProperties"] = fewest
        if most is not None:
            node["maxProperties"] = most
        return node


def _additional(objects: Objects) -> Conjunction:
    """What is said of members that no layer names or matches."""
    found: Conjunction = ()
    for layer in objects.layers:
        found = both(found, layer.additional)
    return found


def _further(regions: dict[str, Any], additional: Any, most: int) -> dict[str, Any] | None:
    """Names that patterns match, or (additional) none does, and what is said of each; None for more than `most`."""
    if not regions:
        return None if additional is not False else {}
    languages = dict(regions)
    found: dict[str, Any] = {}
    try:
        if additional is not False:
            languages[automata.complement("|".join(f"(?:{one})" for one in regions))] = additional
        for language, schema in languages.items():
            if schema is False:
                continue
            texts = automata.texts(language, most)
            if texts is None:
                return None
            found |= dict.fromkeys(texts, schema)
    except RegexRefused:
        return None
    return found if len(found) <= most else None


def _beside(pattern: str, schema: Schema, properties: dict[str, Schema]) -> str:
    """`pattern` without the declared names that it matches, where the backend could not merge what it says of them.

    What a pattern says of a declared name is in the name's own schema already; llguidance says it once more, which does
    no harm, but which it cannot do for references that come back to themselves.
    """
    names = [name for name in properties if matches(pattern, name)]
    if not names or not any(_refers(one) for one in (schema, *(properties[name] for name in names))):
        return pattern
    try:
        return automata.intersection([pattern, all_but(names)])
    except RegexRefused:
        return pattern


def _refers(schema: Schema) -> bool:
    return any(isinstance(node, dict) and "$ref" in node for node in every(schema))
