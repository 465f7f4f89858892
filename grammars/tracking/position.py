"""Where an answer stands in its schema, byte by byte. Positions never change: a byte leads to another one, or to None
where a rule forbids it.

Only what the backend allows is to be read here: this follows JSON and does not check it.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from grammars.recogniser import UNKNOWN, State
from grammars.tracking.characters import QUOTE, plain_run, read_character
from grammars.tracking.distinct import can_differ, has_more
from grammars.tracking.frame import Frame, Key, is_shut, item_node, leads, may_add, other_node, tagged, unique_of
from grammars.tracking.names import Names
from grammars.tracking.rules import ANY, OPAQUE, ArrayRule, ObjectRule, Rules, StringRule
from grammars.tracking.spelling import canonical, decoded, parsed

_BLANK: Final = b" \t\r\n"
_ENDS_SCALAR: Final = b",]} \t\r\n"
_COMMA, _COLON = 0x2C, 0x3A
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = 0x7B, 0x7D, 0x5B, 0x5D
_MAX_KEY: Final = 64
_DIGITS: Final = bytes.maketrans(b"23456789", b"11111111")


class Phase(IntEnum):
    """What is being read, or may come next."""

    VALUE = 0
    FIRST = 1  # a container was opened
    NAME = 2  # after a comma in an object
    IN_NAME = 3
    COLON = 4
    STRING = 5
    SCALAR = 6
    AFTER = 7  # a value ended inside a container
    DONE = 8
    TEXT = 9  # no JSON at all
    START = 10  # what the first byte will tell apart from JSON
    LEAD = 11  # what stands before one of several JSON texts


@dataclass(slots=True, eq=False)
class Position:
    """A place in an answer.

    node: of the value that is read or expected. text: what was read of a name, scalar or string, where it matters;
    pending: the beginning of an escape or of a character; count: characters of a string; state: of its recogniser.
    blank: white space since the last byte that was none. captured: bytes since the outermost array whose items must be
    known as a whole was opened.
    """

    rules: Rules
    frame: Frame | None = None
    phase: Phase = Phase.VALUE
    node: int = ANY
    text: bytes = b""
    pending: bytes = b""
    count: int = 0
    state: State = UNKNOWN
    blank: bytes = b""
    captured: bytes = b""

    @classmethod
    def start(cls, rules: Rules) -> "Position":
        """Before the first byte of an answer."""
        phase = Phase.LEAD if rules.leads else Phase.START if rules.json_begins else Phase.VALUE
        return cls(rules, phase=phase, node=rules.root)

    @property
    def string(self) -> StringRule | None:
        """The rule of the string that is read; None outside of one, in a name and where nothing is known."""
        return self.rules.nodes[self.node].string if self.phase is Phase.STRING else None

    @property
    def is_in_string(self) -> bool:
        """Between the quotes of a string or name."""
        return self.phase is Phase.STRING or self.phase is Phase.IN_NAME

    @property
    def unique(self) -> bool:
        """Whether the value being read is an item that must differ from others."""
        return unique_of(self.frame) is not None

    @property
    def is_listed(self) -> bool:
        """Whether the item that is read, if any, is a string or scalar whose text says all that is captured."""
        frame = self.frame
        if frame is None or (frame.parent is not None and frame.parent.captures):
            return False
        return isinstance(frame.rule, ArrayRule) and not frame.rule.contains

    def is_safe(self, n_bytes: int) -> bool:
        """Whether so many bytes without a quote, within a string or name, can break no rule."""
        if self.phase is Phase.IN_NAME:
            return self.frame is None or not (is_shut(self.frame) or self.dead_names)
        if self.phase is not Phase.STRING:
            return self.phase is Phase.TEXT
        rule = self.string
        if rule is None:
            return True
        if rule.longest is not None and self.count + n_bytes > rule.longest:
            return False
        unique = unique_of(self.frame)
        return unique is None or ("string" not in unique.finite and unique.longest is None)

    def key(self, reach: int) -> Key | None:
        """What decides which tokens may follow: equal keys, equal masks. None where that is not known.

        reach: the most characters that a token adds to a string.
        """
        frame = self.frame
        around: Key | None = () if frame is None else frame.key
        if (
            around is None
            or self.phase is Phase.TEXT
            or len(self.text) > _MAX_KEY
            or (self.captured and not self.is_listed)
        ):
            return None
        text, count = self.text, self.count if self.phase is Phase.LEAD else 0
        if self.phase is Phase.SCALAR and self.rules.nodes[self.node].plain_number and not self.unique:
            text = _shape(text)
        if self.phase is Phase.STRING:
            rule = self.string
            if rule is None or (rule.recogniser is not None and not self.state):
                return None
            text = text if self.unique or not (rule.is_free or self.state) else b""
            count = min(self.count, max(rule.shortest, rule.bound))
            if rule.longest is not None and rule.longest - self.count < reach:
                count = self.count
        if self.phase is Phase.IN_NAME and self.frame is not None and isinstance(self.frame.rule, ObjectRule):
            others = self.frame.names.others if self.frame.names is not None else ()
            text = text if self.frame.rule.names or self.frame.rule.patterns or others else b""
        return (around, self.phase, self.node, text, self.pending, count, self.state, self.blank)

    @property
    def is_shut(self) -> bool:
        """Whether a name is read, and only declared ones may come."""
        return self.phase is Phase.IN_NAME and self.frame is not None and is_shut(self.frame)

    @property
    def is_done(self) -> bool:
        """Whether a whole answer was read, or one JSON text of several."""
        return self.phase is Phase.DONE or self.phase is Phase.LEAD

    def value_alone(self) -> "Position | None":
        """Behind a name, the same position without the object around it; None elsewhere, and where that matters."""
        if self.phase is not Phase.COLON or (self.frame is not None and self.frame.captures):
            return None
        return Position(self.rules, None, Phase.COLON, self.node)

    @property
    def dead_names(self) -> int:
        """Declared names, as bits, that the name being read may turn into although they may not come: where not every
        other name may, it could be none of these in the end."""
        frame = self.frame
        if frame is None or not isinstance(frame.rule, ObjectRule) or frame.names is None:
            return 0
        rule = frame.rule
        if not rule.is_held or not rule.is_narrow:
            return 0
        return rule.bits_by_prefix.get(self.text, 0) & ~frame.names.addable

    def read(self, data: bytes) -> "Position | None":
        """The position after `data`, or None."""
        position: Position | None = self
        i = 0
        while i < len(data):
            if position is None:
                return None
            if position.is_plain and (n := plain_run(data, i)):
                i += n
                continue
            position = position.step(data[i])
            i += 1
        return position

    @property
    def is_plain(self) -> bool:
        """Whether a string is read in which ordinary characters change nothing."""
        if self.phase is not Phase.STRING or self.text or self.pending or self.captured:
            return False
        rule = self.string
        return rule is not None and rule.longest is None and not rule.shortest and rule.recogniser is None

    def step(self, byte: int) -> "Position | None":
        """The position after one byte, or None."""
        following = self._follow(byte)
        if following is None:
            return None
        captures = following.frame is not None and following.frame.captures
        if captures or following.captured:
            captured = self.captured + bytes((byte,)) if captures else b""
            following = replace(following, captured=captured)
        return following

    def _follow(self, byte: int) -> "Position | None":
        phase = self.phase
        if phase is Phase.STRING:
            return self._in_string(byte)
        if phase is Phase.IN_NAME:
            return self._in_name(byte)
        if phase is Phase.SCALAR:
            return self._in_scalar(byte)
        if phase is Phase.LEAD or (phase is Phase.DONE and self.rules.leads):
            return self._in_lead(byte)
        if phase is Phase.TEXT or phase is Phase.DONE:
            return self
        if phase is Phase.START and byte not in self.rules.json_begins:
            return Position(self.rules, None, Phase.TEXT)
        if byte in _BLANK:
            return replace(self, blank=self.blank + bytes((byte,)))
        frame = self.frame
        if self.phase is Phase.COLON:
            if byte != _COLON:
                return None
            return Position(self.rules, frame, Phase.VALUE, self.node, captured=self.captured)
        if self.phase is Phase.VALUE or frame is None:
            return self._begin(byte)
        if byte in (_CLOSE_OBJECT, _CLOSE_ARRAY):
            return self._close(frame)
        if self.phase is Phase.AFTER:
            return self._separate(frame) if byte == _COMMA else None
        if not frame.is_object:
            return self._begin(byte)
        if not may_add(frame):
            return None
        return Position(self.rules, frame, Phase.IN_NAME, self.node, captured=self.captured)

    def _in_lead(self, byte: int) -> "Position | None":
        """Before a JSON text, which begins where the fixed text before it is whole. count: 1 behind another one."""
        text, count = (self.text, self.count) if self.phase is Phase.LEAD else (b"", 1)
        if byte in self.rules.json_begins:
            node = self.rules.leads.get(text.rpartition(self.rules.marker)[2].strip())
            if node is not None:
                return Position(self.rules, None, Phase.VALUE, node)._begin(byte)
        return Position(self.rules, None, Phase.LEAD, self.rules.root, text + bytes((byte,)), count=count)

    def _begin(self, byte: int) -> "Position | None":
        """The first byte of a value."""
        frame, node = self.frame, self.rules.nodes[self.node]
        if frame is not None and frame.captures:
            frame = replace(frame, begin=len(self.captured))
        if byte in (_OPEN_OBJECT, _OPEN_ARRAY):
            is_object = byte == _OPEN_OBJECT
            rule: ObjectRule | ArrayRule | None = node.object if is_object else node.array
            names = Names(rule) if isinstance(rule, ObjectRule) else None
            counts = (0,) * len(rule.contains) if isinstance(rule, ArrayRule) else ()
            opened = Frame(frame, self.node, is_object, rule, names, counts=counts)
            inner = OPAQUE if rule is None else ANY if is_object else item_node(opened)
            return Position(self.rules, opened, Phase.FIRST, inner, captured=self.captured)
        phase = Phase.STRING if byte == QUOTE else Phase.SCALAR
        text = bytes((byte,)) if phase is Phase.SCALAR or self._keeps_text(frame) else b""
        string = node.string
        state = UNKNOWN if string is None or string.recogniser is None else string.recogniser.start
        begun = Position(self.rules, frame, phase, self.node, text, state=state, captured=self.captured)
        return begun if begun._can_differ() else None

    def _keeps_text(self, frame: Frame | None) -> bool:
        """Whether the text of the string that begins here matters."""
        rule = self.rules.nodes[self.node].string
        is_tag = frame is not None and isinstance(frame.rule, ObjectRule) and frame.rule.tag == frame.member
        return (
            is_tag
            or unique_of(frame) is not None
            or (rule is not None and not rule.is_free and rule.recogniser is None)
        )

    def _can_differ(self) -> bool:
        unique = unique_of(self.frame)
        return unique is None or self.frame is None or can_differ(unique, self.frame.before, self.text)

    def _in_scalar(self, byte: int) -> "Position | None":
        if byte in _ENDS_SCALAR:
            ended = self._ended(self.text)
            return None if ended is None else ended._follow(byte)
        following = Position(
            self.rules, self.frame, Phase.SCALAR, self.node, self.text + bytes((byte,)), captured=self.captured
        )
        return following if following._can_differ() else None

    def _in_string(self, byte: int) -> "Position | None":
        rule = self.string
        text = self.text + bytes((byte,)) if self.text else b""
        if byte == QUOTE and not self.pending:
            if rule is not None and self.count < rule.shortest:
                return None
            return self._ended(text)
        begins = not self.pending
        pending, code = read_character(self.pending, byte)
        count, state = self.count, self.state
        if rule is not None:
            count += begins
            if rule.longest is not None and count > rule.longest:
                return None
            if rule.longest is None:
                count = min(count, max(rule.shortest, rule.bound))
            if rule.recogniser is not None and code is not None:
                state = rule.recogniser.after(state, code)
        if not text and pending == self.pending and count == self.count and state is self.state:
            return self
        following = Position(
            self.rules, self.frame, Phase.STRING, self.node, text, pending, count, state, captured=self.captured
        )
        return following if not text or following._can_differ() else None

    def _in_name(self, byte: int) -> "Position | None":
        frame = self.frame
        if frame is None:
            return None
        if byte == QUOTE and not self.pending:
            return self._named(frame)
        pending, _ = read_character(self.pending, byte)
        text = self.text + bytes((byte,))
        if not leads(frame, text):
            return None
        return Position(self.rules, frame, Phase.IN_NAME, self.node, text, pending, captured=self.captured)

    def _named(self, frame: Frame) -> "Position | None":
        """A name was read in full."""
        rule, names = frame.rule, frame.names
        if not isinstance(rule, ObjectRule) or names is None:
            return Position(self.rules, frame, Phase.COLON, OPAQUE, captured=self.captured)
        if not (rule.names or rule.patterns or rule.is_held):
            following = replace(names, has_others=True)
            child = ANY if rule.additional is None else rule.additional
            return Position(self.rules, replace(frame, names=following), Phase.COLON, child, captured=self.captured)
        return self.named_as(frame, decoded(self.text))

    def named_as(self, frame: Frame, name: str | None) -> "Position | None":
        """After a name; None for one that no rule knows."""
        rule, names = frame.rule, frame.names
        if not isinstance(rule, ObjectRule) or names is None:
            return Position(self.rules, frame, Phase.COLON, OPAQUE, captured=self.captured)
        bit = None if name is None else rule.bits.get(name)
        if name is not None and bit is not None:
            if rule.is_held and not bit & names.addable:
                return None
            following, child = names.with_declared(bit), rule.names[name]
        else:
            found = rule.additional if name is None else other_node(rule, name)
            if rule.is_held and not names.takes_others:
                return None
            following, child = names.with_other(name), OPAQUE if found is None else found
        named = replace(frame, names=following, member=name or "")
        return Position(self.rules, named, Phase.COLON, child, captured=self.captured)

    def _close(self, frame: Frame) -> "Position | None":
        if isinstance(frame.rule, ObjectRule) and frame.names is not None:
            if frame.rule.is_held and not frame.names.may_end:
                return None
        elif isinstance(frame.rule, ArrayRule):
            met = zip(frame.counts, frame.rule.contains, strict=True)
            if any(n < one.at_least for n, one in met):
                return None
        closed = Position(self.rules, frame.parent, Phase.AFTER, frame.node, captured=self.captured)
        return closed._ended(b"", bytes((_CLOSE_OBJECT if frame.is_object else _CLOSE_ARRAY,)))

    def _separate(self, frame: Frame) -> "Position | None":
        """A comma."""
        if frame.is_object:
            if not may_add(frame):
                return None
            return Position(self.rules, frame, Phase.NAME, ANY, captured=self.captured)
        unique = unique_of(frame)
        if unique is not None and not has_more(unique, frame.before):
            return None
        return Position(self.rules, frame, Phase.VALUE, item_node(frame), captured=self.captured)

    def _ended(self, text: bytes, last: bytes = b"") -> "Position | None":
        """A value ended. text: of a string or scalar, where it was kept. last: a byte of the value not captured yet."""
        frame = self.frame
        if frame is None:
            return Position(self.rules, None, Phase.DONE, self.node)
        if frame.is_object:
            rule = frame.rule
            if isinstance(rule, ObjectRule) and rule.tag is not None and frame.member == rule.tag and not frame.tag:
                frame = tagged(frame, rule, text)
            if isinstance(rule, ObjectRule) and frame.member in rule.judges and frame.names is not None:
                names = frame.names.with_value(frame.member, self._captured_value(frame, last))
                if not names.alternatives:
                    return None
                frame = replace(frame, names=names, member="")
            return Position(self.rules, frame, Phase.AFTER, ANY, captured=self.captured)
        frame = replace(frame, n=frame.n + 1)
        if isinstance(frame.rule, ArrayRule) and (frame.rule.unique or frame.rule.contains):
            value = parsed(self._captured_value(frame, last))
            if frame.rule.unique:
                name = canonical(value)
                if name in frame.before:
                    return None
                frame = replace(frame, before=frame.before | {name})
            frame = replace(frame, counts=_counted(frame.rule, frame.counts, value))
        return Position(self.rules, frame, Phase.AFTER, ANY, captured=self.captured)

    def _captured_value(self, frame: Frame, last: bytes) -> bytes:
        """The text of the value that ended in `frame`. last: a byte of it not captured yet."""
        return self.captured[frame.begin :] + (b'"' if self.phase is Phase.STRING else last)


def _counted(rule: ObjectRule | ArrayRule | None, counts: tuple[int, ...], item: Any) -> tuple[int, ...]:
    """How many items each `contains` accepts, with one more."""
    if not isinstance(rule, ArrayRule):
        return counts
    pairs = zip(counts, rule.contains, strict=True)
    return tuple(n + bool(n < one.at_least and one.validator.is_valid(item)) for n, one in pairs)


def _shape(text: bytes) -> bytes:
    """A number without the digits that say nothing of what may follow: `-120.75` reads `-1.1`."""
    out = bytearray()
    for byte in text.translate(_DIGITS):
        if byte in b"01" and out and out[-1:] == b"1":
            continue
        if byte == 0x30 and out and out[-1] in b".eE+-" and bytes(out) != b"-":
            byte = 0x31
        out.append(byte)
    return bytes(out)
