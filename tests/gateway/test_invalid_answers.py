"""A server whose masks are broken: no answer that breaks its constraint is passed off as valid."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.checkpoints import END_ID
from tests.gateway.server import Checkpoints, GatewayServer, run_server

# Python imports this before anything else, in the server's process and in the engine's: a backend that lets every
# token through and calls every text complete.
BROKEN = """
import importlib.abc, importlib.machinery, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "grammars.compiler":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.CompiledConstraint.matcher = lambda self: Broken(self._vocabulary)
        spec.loader.exec_module = exec_module
        return spec

class Broken:
    is_complete, is_terminated, n_tokens = True, False, 0
    def __init__(self, vocabulary):
        self.vocabulary = vocabulary
    def fill_mask(self, row):
        row.copy_(self.vocabulary.text_row | self.vocabulary.stop_row)
    def advance(self, token_id):
        return True
    def rollback(self, n):
        pass
    def fork(self):
        return self
    def forced(self):
        return None
    def forced_bytes(self):
        return b""
    def trial(self, tail):
        import torch
        row = self.vocabulary.text_row | self.vocabulary.stop_row
        return torch.stack([row] * (len(tail) + 1)), len(tail)

sys.meta_path.insert(0, Finder())
"""
CLOSED = {"type": "object", "properties": {"n": {"enum": [1]}}, "required": ["n"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "f", "parameters": CLOSED}}
END_SOON = {str(END_ID): 100}  # the end of an answer, as soon as one may come
SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": CLOSED}}
ASKED: list[dict[str, Any]] = [
    {"response_format": SCHEMA_FORMAT},
    {"tools": [TOOL], "tool_choice": "required"},
    {"structured_outputs": {"regex": "[0-9]{40}"}},
    {"structured_outputs": {"choice": ["impossible to say by chance"]}},
    {"structured_outputs": {"grammar": 'root ::= "impossible to say by chance"'}},
    {"structured_outputs": {"grammar": 'start: "impossible to say by chance"'}},
    {"structured_outputs": {"sequence": [{"free_text": {"until": "</think>"}}, {"json": CLOSED}]}},
    {"structured_outputs": {"reasoning": {"until": "</think>"}}, "response_format": SCHEMA_FORMAT},
]


@pytest.fixture(scope="module")
def broken(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayServer]:
    """A real server, but for its matchers."""
    folder: Path = tmp_path_factory.mktemp("broken")
    (folder / "sitecustomize.py").write_text(BROKEN)
    with run_server(checkpoints, folder, {"PYTHONPATH": f"{folder}:{Path.cwd()}"}) as running:
        yield running


def invalid_answers(server: GatewayServer) -> float:
    """What the counter of invalid answers says."""
    return server.engine("small").get("invalid_answers", 0.0)


@pytest.mark.parametrize("ended", [{"stop": ["e", "a", "o", " "]}, {"min_tokens": 5, "logit_bias": END_SOON}])
@pytest.mark.parametrize("asked", ASKED, ids=range(len(ASKED)))
def test_a_wrong_answer_is_an_error_a_count_and_a_line_in_the_log(
    broken: GatewayServer, asked: dict[str, Any], ended: dict[str, Any]
) -> None:
    before, log = invalid_answers(broken), broken.log.read_text()
    reply = broken.chat(max_tokens=400, **ended, **asked)
    assert reply.status == 500, reply.body
    assert reply.json["error"]["code"] == "constraint_violated"
    broken.until(lambda: invalid_answers(broken) == before + 1)
    added = broken.log.read_text()[len(log) :]
    assert "breaks its constraint" in added
    assert "impossible" not in added, "what clients write is not logged"


@pytest.mark.parametrize("asked", ASKED, ids=range(len(ASKED)))
def test_a_wrong_answer_ends_a_stream_with_an_error_and_without_a_finish(
    broken: GatewayServer, asked: dict[str, Any]
) -> None:
    before = invalid_answers(broken)
    reply = broken.chat(stop=["e", "a", "o", " "], max_tokens=400, stream=True, **asked)
    events = [line.removeprefix("data: ") for line in reply.body.decode().split("\n") if line.startswith("data: ")]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    assert chunks[-1]["error"]["code"] == "constraint_violated"
    assert not any(choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"])
    broken.until(lambda: invalid_answers(broken) == before + 1)
