"""Chats of several lengths, no two alike."""

import random
from collections.abc import Iterator
from typing import Any

from bundled_models.cases import generated

ANSWER_TOKENS = 4


def short_chats(seed: int) -> Iterator[dict[str, Any]]:
    """Sentences without tools."""
    for case in _cases(seed):
        yield _body([{"role": "user", "content": case["messages"][-1]["content"]}])


def tool_requests(seed: int) -> Iterator[dict[str, Any]]:
    """Sentences with the definitions of about four tools: about 400 tokens of the bundled tokenizer."""
    for case in _cases(seed):
        if len(case.get("tools", ())) >= 3:
            yield _body(case["messages"], tools=case["tools"])


def long_chats(seed: int, n_turns: int) -> Iterator[dict[str, Any]]:
    """Conversations of so many turns, an odd number, of which the last asks."""
    source, sentences = random.Random(seed), [case["messages"][-1]["content"] for case in _cases(seed)]
    while True:
        turns = enumerate(source.sample(sentences, n_turns))
        yield _body([{"role": ("user", "assistant")[index % 2], "content": text} for index, text in turns])


def _cases(seed: int) -> Iterator[dict[str, Any]]:
    return (case.body("auto") for case in generated(400, seed, "router"))


def _body(messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"messages": messages, "temperature": 0, "max_tokens": ANSWER_TOKENS, **fields}
