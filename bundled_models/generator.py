"""Draws examples: a prompt, the answer it asks for, and what kind of example it is.

Tools and record types come from three sources: the catalogue, the library, and inventions that nobody meets twice.
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from bundled_models import library, matching, phrases, signature
from bundled_models.catalogue import SLOT, Catalogue, Entry, Parameter, Phrasing, Split, load
from bundled_models.invention import Inventor
from bundled_models.offers import Offer
from bundled_models.values import Values

Kind = Literal["call", "calls", "none", "extract", "chat"]
KINDS: tuple[Kind, ...] = ("call", "calls", "none", "extract", "chat")
Source = Literal["catalogue", "library", "invention"]
SOURCES: dict[Source, float] = {"catalogue": 0.3, "library": 0.42, "invention": 0.28}
UNSEEN: dict[Source, float] = {"library": 0.6, "invention": 0.4}  # in the split `held`: no training prompt offers them
OFFERED = (4, 4, 3, 3, 1, 1)  # training prompts with one tool, two, …: short ones say as much in less time
PLAIN_WORD = re.compile(r"(?<![\w{'])[A-Za-z]+ (?=[A-Za-z{])")
THINNED_SHARE = 0.35
AGAIN = frozenset({"in", "for", "to", "from", "on", "with", "of", "at", "by", "about"})


@dataclass(frozen=True, slots=True)
class Stage:
    """How hard the examples are."""

    max_tools: int = 6
    max_calls: int = 3
    kinds: tuple[Kind, ...] = KINDS


STAGES = (
    Stage(2, 1, ("call", "extract", "chat")),
    Stage(4, 2),
    Stage(),
)


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and its answer. `offered` counts the tools in the prompt, `given` the values in the answer."""

    kind: Kind
    system: str | None
    tools: tuple[dict[str, Any], ...]
    schema: dict[str, Any] | None
    schema_name: str | None
    messages: tuple[dict[str, Any], ...]
    answer: str
    offered: int
    given: int

    @property
    def preamble(self) -> str:
        """The part of the prompt that the examples of a group share."""
        return signature.preamble(self.tools, self.schema, self.system, self.schema_name)

    @property
    def turns(self) -> str:
        """The part of the prompt after the preamble."""
        return signature.turns(self.messages)

    @property
    def prompt(self) -> str:
        """The whole prompt; the answer and `<|end|>` follow it."""
        return self.preamble + self.turns


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Generator:
    """An endless source of examples of one split; equal seeds give equal examples."""

    def __init__(
        self,
        seed: int,
        split: Split = "train",
        stage: Stage = STAGES[-1],
        catalogue: Catalogue | None = None,
        sources: Mapping[Source, float] = MappingProxyType(SOURCES),
        matching: float = 0.0,
    ) -> None:
        self.random = random.Random(f"{split}{seed}")
        self.split, self.stage, self.matching = split, stage, matching
        self.catalogue = catalogue or load()
        self.values = Values(self.random, split)
        self.inventor = Inventor(self.random, split)
        self.library = library.load(split)
        self.sources = {k: v for k, v in sources.items() if k != "library" or all(self.library)}
        self.phrases, self.remarks = phrases.of(split), phrases.contexts(split)

    # ---- sentences -------------------------------------------------------------------------------------------------

    def _say(
        self, phrasing: Phrasing, parameters: tuple[Parameter, ...], several: str | None = None
    ) -> tuple[str, dict[str, Any], bool]:
        """(sentence, its values in the order of `parameters`, whether it starts with a value).

        several: a parameter that is given two to four values, a list, as in "the weather in Oslo and in Bergen".
        """
        values: dict[str, Any] = {}
        spoken: dict[str, str] = {}
        for parameter in parameters:
            if parameter.name not in phrasing.names:
                continue
            if not parameter.required and self.random.random() < 0.6:
                continue
            only = phrasing.values_of(parameter.name)
            values[parameter.name], spoken[parameter.name] = self.values.draw(parameter, only)
            if parameter.name == several:
                drawn = dict(self.values.draw(parameter, only)[::-1] for _ in range(self.random.choice((2, 2, 3, 4))))
                values[several], spoken[several] = list(drawn.values()), self._all_of(phrasing, several, list(drawn))
        expressed: set[str] = set()
        text, starts = "", False
        is_thinned = self.split == "train" and self.random.random() < THINNED_SHARE
        for piece in phrasing.pieces:
            if piece.param is not None and (
                piece.param not in values or _word(values[piece.param]) != str(piece.value)
            ):
                continue
            if any(name not in values for name in piece.slots):
                continue
            said = PLAIN_WORD.sub(self._thin, piece.text) if is_thinned else piece.text
            starts |= not text and said.startswith("{")
            text += SLOT.sub(lambda found: spoken[found[1]], said)
            expressed.update(piece.slots, [piece.param] if piece.param else [])
        return text.strip(), {name: value for name, value in values.items() if name in expressed}, starts

    def _all_of(self, phrasing: Phrasing, name: str, said: list[str]) -> str:
        """Several values where the phrasing has one: `a, b and c`, or with the word before it said again."""
        before = re.search(rf"(\w+) \{{{re.escape(name)}\}}", "".join(p.text for p in phrasing.pieces))
        if before and before[1] in AGAIN and self.random.random() < 0.4:
            said = [said[0], *(f"{before[1]} {s}" for s in said[1:])]
        last = self.random.choice((" and ", " and ", ", and ", " and also ", " as well as ", ", then "))
        return ", ".join(said[:-1]) + (last + said[-1] if len(said) > 1 else said[-1])

    def _thin(self, word: re.Match[str]) -> str:
        """Now and then a word is missing: what a request means must not hang on one word of a phrasing."""
        return "" if self.random.random() < 0.12 else word[0]

    def _sentence(self, offer: Offer) -> tuple[str, dict[str, Any], bool]:
        entry = offer.entry
        if self.split == "train" and entry.cores and self.random.random() < 0.35:
            phrasing = entry.compose(self.random)
        else:
            phrasing = self.random.choice(entry.phrasings[self.split])
        return self._say(phrasing, offer.parameters)

    def _dress(self, text: str, starts_with_value: bool, polite: bool = True) -> str:
        """Politeness around a request, a capital letter, a final mark: none of them changes a value."""
        draw = self.random
        if polite and draw.random() < 0.25:
            text, starts_with_value = draw.choice(self.phrases.before) + text, False
        if polite and draw.random() < 0.12:
            text += draw.choice(self.phrases.after)
        if polite and draw.random() < 0.08:
            text = draw.choice(self.remarks[0]) + draw.choice((". ", ". ", ", so ", "; ", " - ")) + text
            starts_with_value = False
        if polite and draw.random() < 0.04:
            text = text.rstrip(".?! ") + draw.choice((", ", ". ", "; ")) + draw.choice(self.remarks[1])
        if not starts_with_value and draw.random() < 0.5:
            text = text[:1].upper() + text[1:]
        if text[-1:].isalnum() or text[-1:] == "'":
            text += draw.choice(("", "", ".", "?", "!" if draw.random() < 0.3 else "."))
        return text

    # ---- definitions -----------------------------------------------------------------------------------------------

    def _definition(self, offer: Offer) -> dict[str, Any]:
        return {
            "type": "function",
            "function": {
                "name": offer.name,
                "description": self.random.choice(offer.entry.descriptions[self.split]),
                "parameters": offer.schema(),
            },
        }

    def _source(self) -> Source:
        return self.random.choices(list(self.sources), list(self.sources.values()))[0]

    def _offers(self) -> list[Offer]:
        """The tools of a prompt: of one source, near relatives among them."""
        draw, source, most = self.random, self._source(), self.stage.max_tools
        count = draw.randint(1, most)
        if self.split == "train":
            count = draw.choices(range(1, most + 1), OFFERED[:most])[0]
        if source == "invention":
            offers = [Offer.draw(t, draw) for t in self.inventor.family(count)]
        else:
            tools = self.catalogue.tools if source == "catalogue" else self.library[0]
            offers = self._related(tools, count)
        draw.shuffle(offers)
        return offers

    def _related(self, tools: tuple[Entry, ...], count: int) -> list[Offer]:
        draw = self.random
        chosen = [draw.choice(tools)]
        near = [t for t in tools if t.domain == chosen[0].domain]
        offers = [Offer.draw(chosen[0], draw)]
        for _ in range(4 * count):
            if len(offers) == count:
                break
            tool = draw.choice(near if draw.random() < 0.5 else tools)
            offer = Offer.draw(tool, draw)
            if tool not in chosen and offer.name not in {o.name for o in offers}:
                chosen.append(tool)
                offers.append(offer)
        return offers

    # ---- branches --------------------------------------------------------------------------------------------------

    def _calls(self, offers: list[Offer], count: int) -> tuple[str, str, int]:
        texts, items, given = [], list[dict[str, Any]](), 0
        offer = self.random.choice(offers)
        if count > 1 and self.random.random() < 0.45 and (found := self._spread(offer)):
            return found
        for index in range(count):
            if index and self.random.random() < 0.6:
                offer = self.random.choice(offers)
            text, values, starts = self._sentence(offer)
            items.append({"name": offer.name, "arguments": offer.stated(values)})
            texts.append((text, starts))
            given += len(values)
        said, starts = texts[0]
        for text, starts_too in texts[1:]:
            joiner = self.random.choice(self.phrases.joiners)
            if joiner.endswith((". ", "? ")) and not starts_too:
                text = text[:1].upper() + text[1:]
            said = said.rstrip(".?! ") + joiner + text
        return self._dress(said, starts), _compact(items), given

    def _spread(self, offer: Offer) -> tuple[str, str, int] | None:
        """One sentence that asks for the same call with several values of one parameter."""
        fit = [
            p.name for p in offer.parameters
            if p.required and p.type in ("string", "integer", "number") and not (p.pool == "message" or p.enum)
        ]  # fmt: skip
        if not fit:
            return None
        name = self.random.choice(fit)
        phrasing = self.random.choice(offer.entry.phrasings[self.split])
        text, values, starts = self._say(phrasing, offer.parameters, name)
        if not isinstance(values.get(name), list) or len(values[name]) < 2:
            return None
        calls = [{"name": offer.name, "arguments": offer.stated(values | {name: v})} for v in values[name]]
        return self._dress(text, starts), _compact(calls), len(calls) * len(values)

    def _unmet(self, offers: list[Offer]) -> str:
        """A request that no offered tool can meet."""
        if self.random.random() < 0.15:
            return self._dress(self.random.choice(self.phrases.questions), False)
        offered, domains = {o.entry.name for o in offers}, {o.entry.domain for o in offers}
        source = self._source()
        if source == "invention":
            entry = self.inventor.family(1)[0]
        else:
            other = [
                t for t in (self.catalogue.tools if source == "catalogue" else self.library[0]) if t.name not in offered
            ]
            if self.random.random() < 0.35:
                other = [t for t in other if t.domain in domains] or other
            entry = self.random.choice(other)
        text, _, starts = self._sentence(Offer.plain(entry))
        return self._dress(text, starts)

    def _branch(self, kind: Kind, offers: list[Offer]) -> tuple[Kind, str, str, int]:
        """(kind, request, answer, values given) for one turn under the offered tools."""
        if kind == "calls" and self.stage.max_calls > 1:
            count = 2 if self.stage.max_calls == 2 or self.random.random() < 0.75 else 3
            return ("calls", *self._calls(offers, count))
        if kind == "none":
            return "none", self._unmet(offers), phrases.NONE, 0
        if kind == "chat":
            said, answer = self.random.choice(self.phrases.chat)
            return "chat", self._dress(said, False, polite=False), answer, 0
        return ("call", *self._calls(offers, 1))

    def _tool_group(self, size: int) -> list[Example]:
        offers = self._offers()
        tools = tuple(self._definition(o) for o in offers)
        base = Example("call", self._system("tools"), tools, None, None, (), "", len(tools), 0)
        weights = {"call": 66, "calls": 16, "none": 13, "chat": 5}
        kinds = [k for k in self.stage.kinds if k != "extract"]
        examples = []
        for kind in self.random.choices(kinds, [weights[k] for k in kinds], k=size):
            drawn, text, answer, given = self._branch(kind, offers)
            messages: tuple[dict[str, Any], ...] = ({"role": "user", "content": text},)
            past = self.random.random()
            if past < 0.06:
                messages = (*self._past(offers), *messages)
            elif past < 0.09 and drawn == "call":
                result = {"role": "tool", "content": self._result()}
                messages = (*messages, {"role": "assistant", "content": answer}, result)
                drawn, answer, given = "chat", phrases.DONE, 0
            examples.append(replace(base, kind=drawn, messages=messages, answer=answer, given=given))
        return examples

    def _past(self, offers: list[Offer]) -> tuple[dict[str, Any], ...]:
        """An earlier turn: a request, the call, its result, the closing sentence."""
        _, text, answer, _ = self._branch("call", offers)
        turn: tuple[dict[str, Any], ...] = (
            {"role": "user", "content": text},
            {"role": "assistant", "content": answer},
        )
        if self.random.random() < 0.5:
            closing = {"role": "assistant", "content": phrases.DONE}
            turn = (*turn, {"role": "tool", "content": self._result()}, closing)
        return turn

    def _result(self) -> str:
        word, number = self.values.made_up(), self.random.randint(1, 999)
        return self.random.choice((f'{{"{word}":{number}}}', "ok", f'{{"status":"{word}"}}', f"{word} {number}", "[]"))

    def _extract_group(self, size: int) -> list[Example]:
        source = self._source()
        if source == "invention":
            entry = self.inventor.record()
        else:
            entry = self.random.choice(self.catalogue.schemas if source == "catalogue" else self.library[1])
        offer = Offer.draw(entry, self.random)
        schema: dict[str, Any] = {"title": entry.name, **offer.schema()}
        if self.random.random() < 0.6:
            schema["description"] = self.random.choice(entry.descriptions[self.split])
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", entry.name).lower()
        name = self.random.choice((entry.name, entry.name, entry.name, snake, "", "response", "result"))
        system = self._system("schema", noun=snake.replace("_", " "))
        examples = []
        for _ in range(size):
            text, values, starts = self._sentence(offer)
            if not starts:
                text = text[:1].upper() + text[1:]
            if self.random.random() < 0.2:
                text = self.random.choice(self.phrases.extract) + text
            messages = ({"role": "user", "content": text},)
            answer = _compact(offer.stated(values))
            examples.append(Example("extract", system, (), schema, name, messages, answer, 0, len(values)))
        return examples

    def _chat_group(self, size: int) -> list[Example]:
        """Talk without tools: greetings, questions, and requests that would need a tool."""
        system, examples = self._system("tools"), []
        for _ in range(size):
            draw = self.random.random()
            said, answer = self.random.choice(self.phrases.chat)
            text = self._dress(said, False, polite=False)
            if draw < 0.2:
                text, answer = self._unmet([]), phrases.PURPOSE
            elif draw < 0.4:
                text, answer = self._dress(self.random.choice(self.phrases.questions), False), phrases.PURPOSE
            messages = ({"role": "user", "content": text},)
            examples.append(Example("chat", system, (), None, None, messages, answer, 0, 0))
        return examples

    def _matching_group(self, size: int) -> list[Example]:
        """Nothing but choosing, see `matching.py`."""
        draw = self.random
        tools, words = matching.random_tools(draw, draw.randint(2, self.stage.max_tools))
        offered = tuple(tools)
        examples = []
        for _ in range(size):
            index = draw.randrange(len(tools) + 1)
            kind: Kind = "call" if index < len(tools) else "none"
            text = matching.request(draw, words[index] if kind == "call" else list(matching.vocabulary()))
            answer = phrases.NONE
            if kind == "call":
                answer = _compact([{"name": tools[index]["function"]["name"], "arguments": {}}])
            messages = ({"role": "user", "content": text},)
            examples.append(Example(kind, None, offered, None, None, messages, answer, len(tools), 0))
        return examples

    def _system(self, about: str, noun: str = "") -> str | None:
        if self.random.random() >= 0.3:
            return None
        if about == "schema" and self.random.random() < 0.6:
            return self.random.choice(self.phrases.instructions).format(noun=noun)
        return self.random.choice(self.phrases.systems)

    # ---- the public side -------------------------------------------------------------------------------------------

    def group(self, size: int) -> list[Example]:
        """`size` examples under one preamble."""
        if self.matching and self.random.random() < self.matching:
            return self._matching_group(size)
        draw = self.random.random()
        if draw < 0.24 and "extract" in self.stage.kinds:
            return self._extract_group(size)
        if draw > 0.975 and "chat" in self.stage.kinds:
            return self._chat_group(size)
        return self._tool_group(size)

    def example(self) -> Example:
        """One example."""
        return self.group(1)[0]


def _word(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
