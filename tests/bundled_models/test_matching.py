"""The drill for choosing: every request is answerable from its definitions, and by nothing else."""

import json
import random

from bundled_models import matching
from bundled_models.generator import Generator


def test_no_two_tools_share_a_word() -> None:
    _, words = matching.random_tools(random.Random(1), 6)
    said = [word for own in words for word in own]
    assert len(said) == len(set(said))


def test_the_words_of_a_tool_stand_in_its_definition() -> None:
    tools, words = matching.random_tools(random.Random(2), 5)
    for tool, own in zip(tools, words, strict=True):
        definition = json.dumps(tool)
        assert all(word in definition for word in own)


def test_a_request_shares_more_words_with_the_right_tool_than_with_any_other() -> None:
    generator = Generator(3, matching=1.0)
    kinds = set()
    for _ in range(60):
        for example in generator.group(4):
            kinds.add(example.kind)
            if example.kind != "call":
                continue
            said = set(example.messages[0]["content"].split())
            (call,) = json.loads(example.answer)
            shared = {
                t["function"]["name"]: len(said & set(matching.WORD.findall(json.dumps(t)))) for t in example.tools
            }
            own = shared.pop(call["name"])
            assert own >= 1
            assert own >= max(shared.values(), default=0)
    assert kinds == {"call", "none"}
