"""How far rounding moves a logit between batch shapes, and how often that could choose another token: the bundled pair.

    python -m benchmarks.rounding [--cases 100] [--dtype float32] [--json OUT]

Greedy answers to requests of the held-out split are computed once more in several shapes: whole, in chunks, token by
token, and beside one another. `largest_difference` is the most by which a logit of one position differs between two
shapes; a step is close where its two best logits are no further apart than twice that, since each may move. Only there
may the engine's default mode choose differently when the schedule does (docs/invariants.md, 17).
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.timing import machine
from bundled_models.cases import generated
from engine import Engine, SamplingParams
from engine.config import CacheConfig
from engine.models.loading import load_decoder
from engine.plan import Row, StepPlan
from engine.runner import ModelRunner

MODELS = Path(__file__).parents[1] / "bundled_models"
BLOCK_SIZE = 16
CHUNK = 32
Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Answer:
    """Token ids of a prompt and of what the model said to it."""

    prompt: list[int]
    output: list[int]

    @property
    def tokens(self) -> list[int]:
        """What is computed: the last token of the output only follows from it."""
        return self.prompt + self.output[:-1]


@dataclass(frozen=True, slots=True)
class Rounding:
    """largest_difference: of a logit of one position, between two shapes. steps: positions that chose a token; close:
    those whose two best logits are at most twice that apart."""

    largest_difference: float
    steps: int
    close: int

    @property
    def margin(self) -> float:
        """Rounding decides nothing where the two best logits are further apart."""
        return 2 * self.largest_difference


def answers_of(folder: Path, count: int, dtype: Dtype = "float32", seed: int = 3) -> list[Answer]:
    """Greedy answers, without a constraint, to `count` requests of the held-out split."""
    with Engine.from_pretrained(folder, dtype, device="cpu") as engine:
        prompts = [engine.tokenizer.encode(case.prompt) for case in generated(count, seed)]
        tokens: list[str | list[int]] = list(prompts)
        results = engine.generate(tokens, SamplingParams(temperature=0, max_tokens=96))
    return [Answer(prompt, result.token_ids) for prompt, result in zip(prompts, results, strict=True)]


def measure(folder: Path, answers: Sequence[Answer], dtype: Dtype = "float32") -> Rounding:
    """Compute each answer's logits in every shape."""
    decoder = load_decoder(folder, getattr(torch, dtype))
    n_blocks = sum(-(-len(answer.tokens) // BLOCK_SIZE) for answer in answers)
    runner = ModelRunner(decoder.config, decoder, CacheConfig(BLOCK_SIZE, n_blocks=n_blocks))
    whole, *others = [
        torch.cat([runner.run(StepPlan(0, tuple(rows))).logits for rows in steps])
        for steps in (_whole(answers), _chunked(answers), _alone(answers), _in_parts(answers))
    ]
    largest = max(float((other - whole).abs().max()) for other in others)
    best = whole.topk(2, dim=-1).values
    return Rounding(largest, len(whole), int((best[:, 0] - best[:, 1] <= 2 * largest).sum()))


def _whole(answers: Sequence[Answer]) -> Iterator[list[Row]]:
    """Each in one row by itself."""
    for answer, table in _tables(answers):
        yield [Row("a", 0, tuple(answer.tokens), table, len(answer.output))]


def _in_parts(answers: Sequence[Answer]) -> Iterator[list[Row]]:
    """The prompt, then the output as drafts of four tokens to verify."""
    for answer, table in _tables(answers):
        yield from _rows(answer, table, [len(answer.prompt)], 4)


def _alone(answers: Sequence[Answer]) -> Iterator[list[Row]]:
    """The prompt, then one token after the other."""
    for answer, table in _tables(answers):
        yield from _rows(answer, table, [len(answer.prompt)], 1)


def _chunked(answers: Sequence[Answer]) -> Iterator[list[Row]]:
    """The prompt in chunks, then one token after the other, each step beside a chunk of the next answer's prompt."""
    company = [*answers[1:], answers[0]]
    tables = [table for _, table in _tables(answers)]
    for (answer, table), other, other_table in zip(_tables(answers), company, [*tables[1:], tables[0]], strict=True):
        chunks = [min(CHUNK, len(answer.prompt) - at) for at in range(0, len(answer.prompt), CHUNK)]
        beside = Row("b", 0, tuple(other.tokens[:CHUNK]), other_table, 0)
        for rows in _rows(answer, table, chunks, 1):
            yield [*rows, beside] if len(answers) > 1 else rows


def _rows(answer: Answer, table: tuple[int, ...], chunks: Iterable[int], part: int) -> Iterator[list[Row]]:
    """Steps of one row each: the prompt in chunks, the last of which chooses a token, then `part` tokens at a time."""
    tokens, start = answer.tokens, 0
    for n in chunks:
        is_last = start + n == len(answer.prompt)
        yield [Row("a", start, tuple(tokens[start : start + n]), table, int(is_last))]
        start += n
    while start < len(tokens):
        piece = tuple(tokens[start : start + part])
        yield [Row("a", start, piece, table, len(piece))]
        start += len(piece)


def _tables(answers: Sequence[Answer]) -> Iterator[tuple[Answer, tuple[int, ...]]]:
    first = 0
    for answer in answers:
        end = first + -(-len(answer.tokens) // BLOCK_SIZE)
        yield answer, tuple(range(first, end))
        first = end


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rounding", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--json", type=Path, metavar="OUT")
    given = parser.parse_args()
    found = {}
    for name in ("small", "large"):
        rounding = measure(MODELS / name, answers_of(MODELS / name, given.cases, given.dtype), given.dtype)
        found[name] = asdict(rounding)
        print(
            f"{name:6} {given.dtype}: logits differ by at most {rounding.largest_difference:.2g} between batch shapes; "
            f"{rounding.close} of {rounding.steps} steps are within {rounding.margin:.2g} of another token"
        )
    if given.json:
        given.json.write_text(
            json.dumps({"machine": machine(), "dtype": given.dtype, "models": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
