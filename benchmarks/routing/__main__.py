"""What routing adds to a request, and what it is worth on the project's own pair.

    python -m benchmarks.routing [--only times overhead quality] [--outcomes FILE] [--json OUT] [--md OUT]

`times`: streamed requests for a model by name and by `auto`, through a real server, on the bundled pair and on a larger
one of random weights. `overhead`: decisions by the server's own clock. `quality`: exact match at equal cost on requests
that the router never saw, from the generator with another seed and, where POINTSMAN_DATA is set, from the Berkeley
Function Calling Leaderboard; the cascade on the same answers; and routers that read different parts of a request, all
trained on the outcomes in bundled_models/runs, where those were made.
"""

import argparse
import asyncio
import json
import os
import tempfile
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.routing import quality, random_pair, report, ttft, unseen
from benchmarks.routing.cascade import cascade_gain
from benchmarks.routing.overhead import overhead
from benchmarks.timing import machine
from gateway.demo import running_server
from gateway.routing.policy_source import pair_prices
from gateway.settings import RoutingSettings, bundled_path
from gateway.settings_loader import load_settings
from router_model.artefact import RouterArtefact
from router_model.options import Cascade, QualityScale, RouteOptions
from router_model.outcomes import read_outcomes
from router_model.policy import Policy

RUNS = Path(__file__).parents[2] / "bundled_models" / "runs"
RESULTS = Path(__file__).parents[1] / "results"
PARTS = ("times", "overhead", "quality")
LARGER = ("T", "M")
SEED = 20261129


def main() -> None:
    """Measure, print, and write both files; parts that were not asked for stay as they were measured before."""
    given = _parser().parse_args()
    found = msgspec.json.decode(given.json.read_bytes()) if given.json.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in given.only:
            figures: dict[str, Any] = {}
            lines = _measure(part, folder, given, figures)
            print("\n".join(lines), flush=True)
            found[part] = {"machine": machine(), "figures": figures, "page": lines}
    given.json.write_text(json.dumps(found, indent=2, default=_plain) + "\n")
    page = ["# Routing", "", "Made by `python -m benchmarks.routing`.", ""]
    page += [line for part in PARTS if part in found for line in found[part]["page"]]
    given.md.write_text("\n".join(page).rstrip() + "\n")


def _measure(part: str, folder: Path, given: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    """One part's figures into `found`, and its lines of the page."""
    if part == "times":
        return _times(folder, given.pairs, found)
    if part == "overhead":
        with running_server([]) as url:
            found["overhead"] = spent = overhead(url, given.decisions)
        return report.overhead_lines(spent)
    outcomes = given.outcomes or folder / "unseen.jsonl.gz"
    if given.outcomes is None:
        data = os.environ.get("POINTSMAN_DATA")
        asyncio.run(unseen.write(outcomes, given.count, SEED, Path(data) / "bfcl" if data else None))
    return _quality(outcomes, given.training, found)


def _times(folder: Path, pairs: int, found: dict[str, Any]) -> list[str]:
    found["bundled"] = ttft.times(None, folder, pairs, long_turns=29)
    lines = report.times_table("bundled pair", found["bundled"])
    config = asyncio.run(random_pair.build(folder, *LARGER))
    name = "random weights, 16 M and 112 M parameters"
    found[name] = ttft.times(config, folder, max(10, pairs // 4), long_turns=29)
    return lines + report.times_table(name, found[name])


def _quality(outcomes: Path, training: Path | None, found: dict[str, Any]) -> list[str]:
    settings = load_settings({})
    prices = pair_prices(settings.prices)
    artefact = RouterArtefact.load(bundled_path("router"))
    everything = read_outcomes([outcomes])
    lines = list[str]()
    for title, route in (("the generator", unseen.GENERATED), ("BFCL simple", unseen.BFCL)):
        rows = quality.Rows.of([one for one in everything if one.route == route], prices)
        if not rows.outcomes:
            continue
        rankings = {quality.LENGTH: quality.length_ranking(rows), "router": quality.router_ranking(artefact, rows)}
        compared = quality.compare(rows, rankings, "router", [quality.RANDOM, quality.LENGTH])
        found[f"quality, {route}"] = compared
        small, large = rows.scores.mean(axis=0)
        note = (
            f"{len(rows.outcomes)} requests; small is right in {small:.1%}, large in {large:.1%}. Percentage points of "
            "exact match at equal cost."
        )
        lines += report.comparison_table(f"Quality at equal cost, {title}", note, compared)
        if artefact.cascade is not None:
            policy = Policy(artefact=artefact, epsilon=0.0, prices=prices)
            routing: RoutingSettings = settings.routing
            wish = RouteOptions(quality=routing.quality_target, quality_scale=QualityScale(routing.quality_scale))
            thresholds = {one: policy.threshold(replace(wish, cascade=one)) for one in Cascade}
            gain = cascade_gain(artefact, rows, rankings["router"], thresholds)
            found[f"cascade, {route}"] = gain
            lines += report.cascade_lines(gain)
        if route == unseen.GENERATED and training is not None and training.is_file():
            sets = quality.feature_sets(read_outcomes([training]), rows)
            found["feature sets"] = compared = [
                one for name in ("state", "state, free") for one in quality.compare(rows, sets, name, ["cheap", "text"])
            ]
            note = (
                "Ranked by the expected gain alone. The state costs the small model's prefill for what goes to the "
                "large one; `free` leaves that out."
            )
            lines += report.comparison_table("What is read of a request", note, compared)
    return lines


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--pairs", type=int, default=80, help="pairs of streamed requests for each figure")
    parser.add_argument("--decisions", type=int, default=2000)
    parser.add_argument("--count", type=int, default=500, help="generated requests that the router never saw")
    parser.add_argument("--outcomes", type=Path, metavar="FILE", help="outcomes of unseen requests that were kept")
    parser.add_argument("--training", type=Path, metavar="FILE", default=RUNS / "outcomes.jsonl.gz")
    parser.add_argument("--json", type=Path, metavar="OUT", default=RESULTS / "routing.json")
    parser.add_argument("--md", type=Path, metavar="OUT", default=RESULTS / "routing.md")
    return parser


if __name__ == "__main__":
    main()
