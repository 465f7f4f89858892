"""Outcomes of both bundled models on requests that the router never saw: of the generator that its training came from,
with another seed, and of the Berkeley Function Calling Leaderboard, which nothing of this project was trained on."""

import json
import secrets
from pathlib import Path

from benchmarks.bfcl.ast_rules import Call, judge
from benchmarks.bfcl.client import Asking, names_of
from benchmarks.bfcl.rows import Row, read_rows
from bundled_models.cases import generated
from gateway.engine_host import start_engine
from gateway.openai.intake import Intake
from gateway.openai.prompt import prompters
from gateway.routing.catalogue import Catalogue
from gateway.routing.grading import ComparingGrader, GradedAnswer
from gateway.routing.shadow import GradedRequest, NoOutcome, Shadow
from gateway.settings_loader import load_settings
from router_model.grading import GraderName
from router_model.outcomes import OutcomeRow, write_outcomes

GENERATED, BFCL = "generated", "bfcl simple"


class BfclGrader:
    """By the leaderboard's rules, as benchmarks.bfcl judges a server. name: what the labels are said to be from."""

    name = "bfcl"

    def __init__(self, rows: dict[str, Row]) -> None:
        """rows: by what their user says."""
        self._rows = rows

    async def grade(self, answer: GradedAnswer) -> float | None:
        """1 or 0."""
        row = self._rows[said(answer.request["messages"])]
        try:
            calls = [Call(names_of(row).original(one["name"]), one["arguments"]) for one in json.loads(answer.text)]
        except (ValueError, TypeError, KeyError):
            return 0.0
        return float(judge(row, calls) is None)


def said(messages: list[dict[str, str]]) -> str:
    """What the user says last."""
    return messages[-1]["content"]


async def write(path: Path, n_generated: int, seed: int, bfcl: Path | None) -> None:
    """Ask both models everything, grade, and write the outcomes. bfcl: folder of the leaderboard's files."""
    own = [
        GradedRequest(id=case.id, group=case.id, request=case.body("auto"), expected=case.expected, route=GENERATED)
        for case in generated(n_generated, seed, "router")
    ]
    rows = {said(list(row.messages)): row for row in read_rows(bfcl, ["simple"])} if bfcl is not None else {}
    public = [
        GradedRequest(id=row.id, group=row.id, request=Asking("auto").body(row), expected="", route=BFCL)
        for row in rows.values()
    ]
    settings = load_settings({})
    engine = await start_engine(settings)
    try:
        catalogue = Catalogue(engine.info())
        intake = Intake(settings, catalogue, prompters(catalogue, settings.dialects), secrets.token_bytes(32))
        found: list[OutcomeRow | NoOutcome] = []
        for requests, grader in ((own, ComparingGrader(GraderName.EXACT_MATCH)), (public, BfclGrader(rows))):
            await Shadow(engine, intake, grader).outcomes(requests, found.append)
    finally:
        await engine.close()
    write_outcomes(path, [one for one in found if isinstance(one, OutcomeRow)])
