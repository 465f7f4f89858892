from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_model.artefact import RouterArtefact
from router_model.learned import LearnedRows
from router_model.outcomes import Outcome, OutcomeRow, StateBlob, read_outcomes, write_outcomes
from tests.router_model.worlds import make_outcomes


def logged(name: str, session: str = "") -> Outcome:
    return OutcomeRow(id=name, features=b"what was read", session=session, weak_score=1.0, strong_score=1.0).outcome()


def test_a_router_on_disk_knows_its_training_rows_and_no_others(
    artefact: RouterArtefact, outcomes: list[Outcome], tmp_path: Path
) -> None:
    artefact.save(tmp_path)
    loaded = RouterArtefact.load(tmp_path)
    assert loaded.hash == artefact.hash
    assert loaded.learned is not None
    assert all(loaded.learned.knows(one) for one in outcomes)
    assert not any(loaded.learned.knows(one) for one in make_outcomes(1_000, with_state=True, seed=9))
    assert loaded.learned.digests.nbytes <= 24 * len(outcomes)


def test_a_router_from_before_digests_were_kept_is_told_apart(artefact: RouterArtefact, tmp_path: Path) -> None:
    older = replace(artefact, learned=None)
    older.save(tmp_path)
    loaded = RouterArtefact.load(tmp_path)
    assert loaded.learned is None
    assert loaded.hash == older.hash != artefact.hash


def test_a_row_is_known_by_any_file_that_it_comes_from(tmp_path: Path) -> None:
    rows = make_outcomes(60, with_state=True)
    learned = LearnedRows.of(rows)
    packed = [
        OutcomeRow(
            id=one.id,
            group=one.group,
            prompt=one.text,
            weak_score=one.weak_score,
            strong_score=one.strong_score,
            facts=one.facts,
            state=StateBlob.of(one.state.values, "float32"),
            entropy=one.state.entropy,
            margin=one.state.margin,
        )
        for one in rows
        if one.state is not None
    ]
    write_outcomes(tmp_path / "rows.jsonl.gz", packed)
    assert all(learned.knows(one) for one in read_outcomes([tmp_path / "rows.jsonl.gz"]))


def test_a_prompt_is_known_under_another_name_and_another_prefill_of_it_under_its_own() -> None:
    (one,) = make_outcomes(1, with_state=True)
    learned = LearnedRows.of([replace(one, group=one.id)])
    renamed = replace(one, id="other", group="other", weak_score=0.5)
    assert one.state is not None
    prefilled = replace(one, group=one.id, state=replace(one.state, values=one.state.values + np.float32(1e-3)))
    assert learned.knows(renamed)
    assert learned.knows(prefilled)
    assert not learned.knows(replace(prefilled, id="other", group="other"))
    assert not learned.knows(replace(renamed, text=one.text + " please"))
    assert not learned.knows(replace(renamed, facts=replace(one.facts, n_tools=one.facts.n_tools + 1)))


def test_a_logged_decision_is_known_by_its_id_and_its_conversation() -> None:
    learned = LearnedRows.of([logged("a", "talk"), logged("b")])
    assert learned.knows(logged("a", "talk"))
    assert learned.knows(logged("b"))
    assert learned.knows(logged("c", "talk")), "another turn of the same conversation"
    assert not learned.knows(logged("c")), "the same request, asked again later"


def test_what_is_no_column_of_digests_is_refused() -> None:
    assert not LearnedRows.of([]).knows(logged("a"))
    wrong: Any
    for wrong in (np.zeros(3), np.zeros((2, 2), np.uint64)):
        with pytest.raises(ValueError, match="uint64"):
            LearnedRows(wrong)
