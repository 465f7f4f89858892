from dataclasses import replace

import numpy as np
import pytest

from router_model.appraisal import Appraiser
from router_model.artefact import RouterArtefact
from router_model.bundle import recalibrate
from router_model.circumstances import Circumstances, Offer
from router_model.costs import Prices, TokenPrice
from router_model.facts import RequestFacts
from router_model.features import Kind, extract, extract_outcome
from router_model.options import Action
from tests.router_model.worlds import make_outcomes

PRICES = Prices(small=TokenPrice(input_usd=1e-6, output_usd=2e-6), large=TokenPrice(input_usd=1e-5, output_usd=3e-5))
CIRCUMSTANCES = Circumstances(
    small=Offer(prompt_usd=1e-4, output_usd_per_token=2e-6),
    large=Offer(prompt_usd=1e-3, output_usd_per_token=3e-5),
    route_usd=1e-4,
)


def test_a_request_is_appraised_by_what_the_artefact_predicts_and_the_evidence_ranks(artefact: RouterArtefact) -> None:
    rows = [replace(row, route="code" if i % 2 else "") for i, row in enumerate(make_outcomes(400, with_state=True))]
    for router in (artefact, recalibrate(artefact, rows)):
        appraiser = Appraiser(router, PRICES)
        scale = router.evidence.priced(PRICES).scale
        assert scale is not None
        for row in rows[:20]:
            features = extract_outcome(row, Kind.STATE)
            seen = router.predict([features], [row.route])
            view = appraiser.appraise(features, row.route, CIRCUMSTANCES)
            assert view.costs is not None
            assert view.p_small is not None
            assert view.p_large is not None
            assert view.ood is not None
            expected = (seen.p_small, seen.p_large, seen.ood, seen.score, scale.rank(seen.score, view.costs.extra))
            found = (view.p_small, view.p_large, view.ood, view.score, view.rank_low)
            np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-9, atol=1e-9)
            assert view.rank_low == view.rank_high


def test_costs_are_added_up_by_model(artefact: RouterArtefact) -> None:
    features = extract_outcome(make_outcomes(1, with_state=True)[0], Kind.STATE)
    view = Appraiser(artefact, PRICES).appraise(features, "", CIRCUMSTANCES)
    assert view.costs is not None
    assert view.cost_usd == {
        Action.SMALL: view.costs.small[0],
        Action.LARGE: view.costs.large[0] + view.costs.route[0],
    }
    assert Appraiser(artefact, None).appraise(features, "", Circumstances()).cost_usd is None


def test_no_more_tokens_are_expected_than_a_request_allows(artefact: RouterArtefact) -> None:
    row = make_outcomes(1, with_state=True)[0]
    appraiser = Appraiser(artefact, PRICES)
    for allowed in (0, 3):
        features = extract(row.text, RequestFacts(max_tokens=allowed), row.state)
        view = appraiser.appraise(features, "", CIRCUMSTANCES)
        assert view.large_tokens is not None
        assert view.large_tokens > 3 if allowed == 0 else view.large_tokens == pytest.approx(3)
