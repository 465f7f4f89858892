"""What the prefix cache and the windows save, counted in tokens and pages; no model, so every run prints the same.

    python -m benchmarks.prefix [--block-size 32] [--json OUT]

`chat`: 12 talks of 6 turns behind one system prompt of 300 tokens, by turns; every prompt is all that was said before
and 15 to 60 tokens more. `tasks`: single prompts of 10 to 80 own tokens behind the same 300. `burst of 16`: prompts of
780 shared and 32 own tokens, and `4 choices`: one prompt of 200 tokens four times, all submitted before the first step.
Prompt tokens computed are shown without a cache, with whole blocks shared, and with copies of blocks that are shared in
part (`whole`: copied only where all of it is shared, as where pooled states are kept). Pages held at the end of a
context of 8,192 tokens, times the layers that a page holds, are shown for published layouts beside the same layers
without windows.
"""

import argparse
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.block_tables import ONE_GROUP
from engine.blocks import BlockPool, root_key
from engine.config import SchedulerConfig
from engine.kv_groups import NULL_BLOCK, KVGroup, kv_groups, layers_per_page
from engine.plan import Accepted, StepResult
from engine.request import Request
from engine.scheduler import Scheduler

ROOT = root_key(salt="", fingerprint="none", kv_format="none")
CONTEXT = 8192
LAYOUTS: dict[str, list[int | None]] = {
    "Mistral 7B v0.1": [4096] * 32,
    "Gemma 2 2B": [4096, None] * 13,
    "Gemma 3 1B": ([512] * 5 + [None]) * 4 + [512] * 2,
}


@dataclass(frozen=True, slots=True)
class Counted:
    """Prompt tokens of a workload: all of them, those computed where whole blocks are shared, and with copies too."""

    workload: str
    prompt: int
    blocks: int
    copies: int


class Machine:
    """A scheduler whose model says random tokens."""

    def __init__(self, block_size: int, groups: tuple[KVGroup, ...] = ONE_GROUP, *, splits_blocks: bool = True) -> None:
        pool = BlockPool(400_000 // block_size, block_size)
        self.scheduler = Scheduler(
            SchedulerConfig(), pool, max_model_len=100_000, groups=groups, splits_blocks=splits_blocks
        )
        self.draw, self._ids = random.Random(0), 0

    def tokens(self, low: int, high: int) -> list[int]:
        """Between `low` and `high` random tokens."""
        return [self.draw.randrange(32_000) for _ in range(self.draw.randint(low, high))]

    def answer(self, *prompts: list[int], n: int) -> list[Request]:
        """Serve prompts that come at once, `n` tokens each; returns the requests with what they were given."""
        requests = []
        for prompt in prompts:
            self._ids += 1
            requests.append(Request(str(self._ids), list(prompt), root_key=ROOT))
            self.scheduler.add(requests[-1])
        while (plan := self.scheduler.schedule()) is not None:
            drawn = {row.request_id: Accepted(tuple(self.tokens(1, 1))) for row in plan.rows if row.n_logits}
            self.scheduler.commit(StepResult(plan.step_id, drawn))
            for request in requests:
                if len(request.tokens) == request.n_prompt + n:
                    self.scheduler.finish(request)
        return requests

    def counted(self, workload: str) -> Counted:
        """What was counted until now."""
        counters = self.scheduler.counters
        computed = counters.prompt_tokens_computed
        prompt = computed + counters.prompt_tokens_cached
        return Counted(workload, prompt, computed + counters.tokens_copied, computed)


def conversations(block_size: int, *, splits_blocks: bool) -> list[Counted]:
    """12 talks that go on, and as many single prompts, over one system prompt."""
    name = "" if splits_blocks else ", whole"
    chat, tasks = (Machine(block_size, splits_blocks=splits_blocks) for _ in range(2))
    system = chat.tokens(300, 300)
    said = [list(system) for _ in range(12)]
    for _ in range(6):
        for talk in said:
            talk += chat.tokens(15, 60)
            talk[:] = chat.answer(talk, n=chat.draw.randint(20, 120))[0].tokens
            tasks.answer(system + tasks.tokens(10, 80), n=40)
    return [chat.counted(f"chat{name}"), tasks.counted(f"tasks{name}")]


def at_once(block_size: int) -> list[Counted]:
    """Prompts that share their beginning and come before the first of them is computed."""
    burst, choices = Machine(block_size), Machine(block_size)
    shared = burst.tokens(780, 780)
    burst.answer(*(shared + burst.tokens(32, 32) for _ in range(16)), n=8)
    choices.answer(*[choices.tokens(200, 200)] * 4, n=8)
    return [burst.counted("burst of 16"), choices.counted("4 choices")]


def pages_held(block_size: int, windows: list[int | None]) -> int:
    """Pages at the end of a context, times the layers that a page holds."""
    groups = kv_groups(windows)
    machine = Machine(block_size, groups)
    request = Request("one", machine.tokens(CONTEXT - 100, CONTEXT - 100), root_key=ROOT)
    machine.scheduler.add(request)
    while len(request.tokens) < CONTEXT:
        plan = machine.scheduler.schedule()
        if plan is None:
            raise RuntimeError("the request stands still")
        drawn = {row.request_id: Accepted((0,)) for row in plan.rows if row.n_logits}
        machine.scheduler.commit(StepResult(plan.step_id, drawn))
    tables = (request.blocks, *request.other_blocks)
    return layers_per_page(groups) * sum(block != NULL_BLOCK for table in tables for block in table)


def main() -> None:
    """Print the tables; write them where `--json` says."""
    parser = argparse.ArgumentParser(description="Counts what the prefix cache and the windows save.")
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size: int = options.block_size
    counted = conversations(size, splits_blocks=True) + conversations(size, splits_blocks=False) + at_once(size)
    print(f"{'prompt tokens':<16}{'all':>9}{'blocks':>9}{'+ copies':>9}   copies save")
    for row in counted:
        saved = 1 - row.copies / row.blocks
        print(f"{row.workload:<16}{row.prompt:>9,}{row.blocks:>9,}{row.copies:>9,}{saved:>13.0%}")
    windows = {name: (pages_held(size, layout), len(layout) * CONTEXT // size) for name, layout in LAYOUTS.items()}
    print(f"\n{'pages x layers at ' + format(CONTEXT, ','):<27}{'windows':>9}{'without':>9}")
    for name, (held, without) in windows.items():
        print(f"{name:<27}{held:>9,}{without:>9,}{held / without:>8.0%}")
    if options.json:
        content = {"block_size": size, "prompt_tokens": [asdict(row) for row in counted], "pages": windows}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
