"""What each form of weights costs in exactness, on the bundled pair, against float32.

    python -m benchmarks.quantization [--cases 200] [--json OUT]

Every hand-written test case is computed with its right answer (teacher forcing); at each position of the answer the
logits of a form are compared with those of float32: the root mean square and the largest difference (logits minus
their mean, which no probability depends on), the share of positions where the best token is the same, and the
perplexity of the right answer.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.timing import machine
from bundled_models.cases import HANDWRITTEN, Case, written
from engine.config import CacheConfig, Quantization
from engine.models.loading import load_decoder
from engine.plan import Row, StepPlan
from engine.quantization import converter
from engine.runner import ModelRunner
from engine.tokenizer import Tokenizer

MODELS = Path(__file__).parents[1] / "bundled_models"
FORMS: dict[str, tuple[torch.dtype, Quantization]] = {
    "float32": (torch.float32, "none"),
    "bfloat16": (torch.bfloat16, "none"),
    "w8a8": (torch.bfloat16, "w8a8"),
    "w8a8, float32 activations": (torch.float32, "w8a8"),
    "int4": (torch.bfloat16, "int4"),
}


@dataclass(frozen=True, slots=True)
class FormError:
    """One form of one model. Differences are of logits; agreement is a share of `positions`; mebibytes: of what a step
    reads of weights."""

    model: str
    form: str
    positions: int
    rms_difference: float
    largest_difference: float
    agreement: float
    perplexity: float
    mebibytes: float


def answer_logits(folder: Path, form: str, texts: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, int]:
    """float32 [answer tokens of all texts, vocab], and the bytes of the weights. texts: tokens of prompt and answer."""
    dtype, quantize = FORMS[form]
    convert = converter(quantize, dtype, torch.device("cpu"), is_invariant=True)
    decoder = load_decoder(folder, dtype, convert=convert)
    longest = max(len(prompt) + len(answer) for prompt, answer in texts)
    block_size = 32
    n_blocks = -(-longest // block_size)
    runner = ModelRunner(decoder.config, decoder, CacheConfig(block_size, n_blocks=n_blocks), is_invariant=True)
    parts = []
    for prompt, answer in texts:
        tokens = tuple(prompt + answer[:-1])
        row = Row("text", 0, tokens, tuple(range(n_blocks)), n_logits=len(answer))
        parts.append(runner.run(StepPlan(0, (row,))).logits)
    return torch.cat(parts), sum(projection.n_bytes for projection in decoder.projections)


def compare(model: str, texts: Sequence[tuple[list[int], list[int]]]) -> list[FormError]:
    """Every form of one bundled model."""
    targets = torch.tensor([token for _, answer in texts for token in answer])
    reference, _ = answer_logits(MODELS / model, "float32", texts)
    errors = []
    for form in FORMS:
        logits, n_bytes = answer_logits(MODELS / model, form, texts)
        difference = (logits - logits.mean(-1, keepdim=True)) - (reference - reference.mean(-1, keepdim=True))
        loss = torch.nn.functional.cross_entropy(logits, targets)
        errors.append(
            FormError(
                model=model,
                form=form,
                positions=len(targets),
                rms_difference=float(difference.square().mean().sqrt()),
                largest_difference=float(difference.abs().max()),
                agreement=float((logits.argmax(-1) == reference.argmax(-1)).float().mean()),
                perplexity=math.exp(float(loss)),
                mebibytes=n_bytes / 2**20,
            )
        )
    return errors


def as_tokens(case: Case, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Prompt and right answer of a case, the end token last."""
    answer = tokenizer.encode_plain(json.dumps(case.expected, ensure_ascii=False, separators=(",", ":")))
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tokenizer.encode(case.prompt), [*answer, *end]


def main() -> None:
    """Print the table; write it where --json says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200, help="how many of the hand-written cases")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    cases = [case for case in written(HANDWRITTEN) if case.expected is not None][: options.cases]
    found: list[FormError] = []
    print(f"{'model':6} {'form':26} {'MiB':>6} {'rms':>7} {'largest':>8} {'same best':>9} {'perplexity':>10}")
    for model in ("small", "large"):
        tokenizer = Tokenizer.from_folder(MODELS / model)
        for error in compare(model, [as_tokens(case, tokenizer) for case in cases]):
            found.append(error)
            print(
                f"{error.model:6} {error.form:26} {error.mebibytes:6.1f} {error.rms_difference:7.4f} "
                f"{error.largest_difference:8.3f} {error.agreement:9.2%} {error.perplexity:10.4f}"
            )
    if options.json:
        content = {"machine": machine(), "forms": [asdict(error) for error in found]}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
