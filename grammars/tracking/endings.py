"""How a string or name that is being read may end, and where that leads."""

import json
from dataclasses import dataclass, replace

from grammars.tracking.position import Phase, Position
from grammars.tracking.rules import ANY, ArrayRule, ObjectRule
from grammars.tracking.spelling import spelled


@dataclass(slots=True, eq=False)
class Ending:
    """What a position within a string or name tells of its end. Most texts lead to the same place; some that rules know
    lead elsewhere: the special ones."""

    position: Position

    @property
    def is_alike(self) -> bool:
        """Whether all texts of the string or name being read lead to the same place, but for the special ones."""
        position = self.position
        frame = position.frame
        if not position.is_in_string or frame is None or b"\\" in position.text:
            return position.is_in_string and frame is None
        if position.phase is Phase.IN_NAME or frame.rule is None:
            return True
        if isinstance(frame.rule, ArrayRule):
            return not frame.rule.contains
        return frame.rule.tag != frame.member and frame.member not in frame.rule.judges

    def afters(self) -> list[Position]:
        """The positions that may be behind the closing quote of the string or name being read, unless its text is a
        special one."""
        position = self.position
        frame = position.frame
        if frame is None:
            return [Position(position.rules, None, Phase.DONE, position.node)]
        if position.phase is not Phase.IN_NAME:
            around = frame if frame.is_object else replace(frame, n=frame.n + 1)
            return [Position(position.rules, around, Phase.AFTER, ANY)]
        after = position.named_as(frame, None)
        if after is None or not isinstance(frame.rule, ObjectRule) or not frame.rule.patterns:
            return [] if after is None else [after]
        nodes = {child for _, child in frame.rule.patterns}
        if frame.rule.additional is not None:
            nodes.add(frame.rule.additional)
        return [replace(after, node=node) for node in sorted(nodes)]

    def name_ends(self) -> list[bytes]:
        """What is left of the spellings of the declared names that the name being read may become."""
        position = self.position
        frame = position.frame
        if frame is None or not isinstance(frame.rule, ObjectRule) or frame.names is None:
            return []
        bits = frame.rule.bits_by_prefix.get(position.text, 0) & frame.names.addable
        return [text[len(position.text) :] for text, bit in frame.rule.spellings if bit & bits]

    def dead_ends(self) -> list[bytes]:
        """What is left of the spelling of each declared name that may not come (`dead_names`), its quote included."""
        position = self.position
        bits = position.dead_names
        rule = None if position.frame is None else position.frame.rule
        if not bits or not isinstance(rule, ObjectRule):
            return []
        return [spelling[len(position.text) :] + b'"' for spelling, bit in rule.spellings if bit & bits]

    def special_texts(self) -> list[bytes]:
        """What is to be added to the string or name being read so that its text is one that a rule knows."""
        position = self.position
        frame = position.frame
        if frame is None:
            return []
        texts: tuple[bytes, ...] = ()
        if position.phase is Phase.IN_NAME and isinstance(frame.rule, ObjectRule) and frame.names is not None:
            texts = tuple(spelled(name)[1:-1] for name in frame.names.others)
            if frame.rule.bits_by_prefix.get(position.text):
                texts += tuple(text for text, _ in frame.rule.spellings)
        elif position.unique:
            texts = tuple(spelled(json.loads(name))[1:-1] for name in frame.before if name.startswith('"'))
        begun = position.text if position.phase is Phase.IN_NAME else position.text[1:]
        return [text[len(begun) :] for text in texts if text.startswith(begun)]

    @property
    def may_close_judged(self) -> bool:
        """Whether a bracket behind it may end a value that is judged as a whole."""
        position = self.position
        return position.frame is not None and position.frame.captures and not position.is_listed
