"""Made-up tools and record types: names, parameters and sentences composed of words, so that only reading helps.

A tool is a verb and a thing (`estimate_copper_tide`); its parameters are everyday ones (a city, a date) or things and
measures that nobody has met together. What a sentence says of a parameter is either the parameter's own words near the
value ("with a hull length of 12") or an everyday clause ("in Oslo"). Words of the splits are disjoint by a hash, and so
are the frames of sentences.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bundled_models.catalogue import Entry, Phrasing, Split, parse
from bundled_models.made_parameters import Made, ParameterMaker, side, words

COUNTS = (8, 32, 42, 13, 5)  # tools with one, two, … parameters, as real function documents have them
SPLITS: tuple[Split, ...] = ("train", "router", "held")
GIVEN_FIRST = ("there is", "I have", "we have", "take", "imagine")
LEADS = ("It goes", "It comes", "It is listed", "It was noted", "It stands")
OPENINGS = (
    *("The {thing} came in", "There was a {thing}", "We looked at the {thing}", "About the {thing}:"),
    *("This {thing} is known", "Here is a {thing}", "A {thing} was noted"),
)


class Inventor:
    """Invents entries of a split; equal seeds give equal entries."""

    def __init__(self, source: random.Random, split: Split) -> None:
        self._random = source
        self._make = ParameterMaker(source, split)
        data = words()
        self._verbs: dict[str, dict[str, Any]] = data["verbs"]
        self._frames: dict[str, list[str]] = data["frames"][side(split)]
        self._descriptions: list[str] = data["descriptions"]

    def family(self, count: int, phrasings: int = 3) -> list[Entry]:
        """`count` tools of different names, some of which share their verb or their thing with another."""
        verbs = list(self._verbs)
        verb, thing = self._random.choice(verbs), self._make.thing()
        found: dict[str, Entry] = {}
        seen: set[tuple[str, tuple[str, ...]]] = set()
        while len(found) < count:
            draw = self._random.random()
            if found and draw < 0.3:
                verb = self._random.choice(verbs)
            elif found and draw < 0.55:
                thing = self._make.thing()
            elif found:
                verb, thing = self._random.choice(verbs), self._make.thing()
            entry = self._tool(verb, thing, phrasings)
            if entry.name not in found and (verb, thing) not in seen:
                seen.add((verb, thing))
                found[entry.name] = entry
        return list(found.values())

    def record(self) -> Entry:
        """A record type and a paragraph that states one."""
        thing, pick = self._make.thing(), self._random.choice
        made, spoken = self._make.parameters(self._random.randint(2, 6), 0.7), " ".join(thing)
        text = pick(OPENINGS).format(thing=spoken)
        for index, one in enumerate(self._random.sample(made, len(made))):
            clause = self._clause(one)
            if index and self._random.random() < 0.25:
                if clause.startswith(" "):
                    clause = f". {pick(LEADS)}{clause}"
                elif clause.startswith("[ ") and clause.count("[") == 1:
                    clause = f"[. {pick(LEADS)}{clause[1:]}"
            text += clause
        about = pick((f"A {spoken}", f"What is known of a {spoken}", f"Record of a {spoken}"))
        return _entry("".join(w.capitalize() for w in thing), spoken, about, made, [parse(text + ".")])

    def _tool(self, verb_name: str, thing: tuple[str, ...], phrasings: int) -> Entry:
        verb, pick = self._verbs[verb_name], self._random.choice
        count = self._random.choices(range(1, len(COUNTS) + 1), COUNTS)[0]
        made = self._make.parameters(count, pick((0.5, 0.75, 1.0, 1.0)))
        if not any(m.parameter.required for m in made):
            made[0] = replace(made[0], parameter=replace(made[0].parameter, required=True))
        made.sort(key=lambda m: not m.parameter.required)
        parts = [pick(verb["name"]), *thing]
        if self._random.random() < 0.04:
            parts = [*thing, parts[0]]
        said = [self._phrasing(verb, thing, made) for _ in range(phrasings)]
        return _entry(self._make.identifier(parts), " ".join(thing), self._about(verb, thing, made), made, said)

    # ---- sentences -------------------------------------------------------------------------------------------------

    def _clause(self, made: Made) -> str:
        """What a sentence says of one parameter: a bracket for each value of a boolean, one if optional."""
        by_value: dict[str | None, list[str]] = {}
        for text, value in made.clauses:
            by_value.setdefault(value, []).append(text)
        name, pick = made.parameter.name, self._random.choice
        if None in by_value:
            text = pick(by_value[None])
            return text if made.parameter.required else f"[{text}]"
        return "".join(f"[{name}={value}:{pick(texts)}]" for value, texts in by_value.items())

    def _phrasing(self, verb: dict[str, Any], thing: tuple[str, ...], made: Sequence[Made]) -> Phrasing:
        pick, draw = self._random.choice, self._random.random
        clauses = [self._clause(m) for m in (made if draw() < 0.3 else self._random.sample(made, len(made)))]
        for i in range(1, len(clauses)):
            if clauses[i].startswith(" ") and draw() < 0.25:
                clauses[i] = pick((" and", ",", ", and")) + clauses[i]
        full, bare = self._noun_phrase(verb, thing)
        kind = self._random.choices(("do", "ask", "bare"), (58, 32, 10))[0]
        frame, stated = pick(self._frames[kind]), "".join(clauses)
        first = stated.strip(" ,;")
        if clauses[0].startswith(" ") and draw() < 0.08:
            frame, stated = "{first}: " + frame, ""
        elif draw() < 0.1:  # the values first, in a sentence of their own
            first = f"{pick(GIVEN_FIRST)} {pick(('a', 'this', 'the'))} {thing[-1]}{stated}. "
            frame, stated = "{first}" + frame, ""
        return parse(
            frame.format(do=pick(verb["do"]), ask=pick(verb["ask"]), np=full, bare=bare, f=stated, first=first)
        )

    def _noun_phrase(self, verb: dict[str, Any], thing: tuple[str, ...]) -> tuple[str, str]:
        """What the sentence calls the thing, (with an article, without)."""
        spoken, pick, draw = " ".join(thing), self._random.choice, self._random.random
        if len(thing) > 1 and draw() < 0.15:
            spoken = f"{thing[-1]} of {' '.join(thing[:-1])}" if draw() < 0.5 else thing[-1]
        if verb["article"] == "plural":
            return f"{spoken}s", f"{spoken}s"
        article = pick((verb["article"], verb["article"], "my", "the", "this"))
        return f"{'an' if article == 'a' and spoken[0] in 'aeiou' else article} {spoken}", spoken

    def _about(self, verb: dict[str, Any], thing: tuple[str, ...], made: Sequence[Made]) -> str:
        """A description of the tool."""
        pick = self._random.choice
        spoken = [m.parameter.name.replace("_", " ").replace(".", " ") for m in made]
        bare = " ".join(thing) + ("s" if verb["article"] == "plural" else "")
        article = "" if verb["article"] == "plural" else "the " if verb["article"] == "the" else "a "
        return str(pick(self._descriptions)).format(
            about=pick(verb["about"]), do=pick(verb["do"]), np=article + bare, bare=bare, w=pick(spoken),
            ws=" and ".join(spoken[:2]), by=f"by {pick(spoken)}",
        )  # fmt: skip


def _entry(name: str, domain: str, about: str, made: Sequence[Made], phrasings: list[Phrasing]) -> Entry:
    parameters = tuple(m.parameter for m in made)
    return Entry(
        name,
        domain,
        {split: [about] for split in SPLITS},
        parameters,
        dict.fromkeys(SPLITS, phrasings),
        (),
        {},
        {},
    )
