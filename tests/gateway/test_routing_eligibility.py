"""What `model` means, which models could answer, and what `auto` does without a router."""

import pytest

from engine.messages import ModelInfo
from gateway.routing.catalogue import Catalogue, Target, UnknownModel
from gateway.routing.eligibility import Eligibility, NothingEligible, eligibility
from gateway.routing.rule import decide_by_rule


def info(name: str, path: str, window: int = 100) -> ModelInfo:
    return ModelInfo(name, path, 1, 100, window, "float32", 1, 1, 16, f"{name}-0123456789abcdef")


def catalogue(small: str = "/m/tiny", large: str = "/m/big", windows: tuple[int, int] = (100, 200)) -> Catalogue:
    return Catalogue([info("small", small, windows[0]), info("large", large, windows[1])])


def test_models_answer_to_their_alias_and_to_their_folder() -> None:
    models = catalogue()
    assert models.names == ["auto", "auto-quality", "auto-cost", "tiny", "big", "small", "large"]
    for name, alias in [("small", "small"), ("tiny", "small"), ("large", "large"), ("big", "large")]:
        wanted = models.resolve(name)
        assert wanted.model is models[alias]
    assert models.resolve("auto-cost").target is Target.COST


@pytest.mark.parametrize(("small", "large"), [("/a/m", "/b/m"), ("/a/large", "/a/small"), ("/a/auto", "/a/small")])
def test_a_folder_name_that_could_mean_something_else_is_not_used(small: str, large: str) -> None:
    models = catalogue(small, large)
    assert [m.id for m in models.models] == ["small", "large"]
    assert [models.resolve(m).model for m in ("small", "large")] == list(models.models)


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match="use one of auto, auto-quality"):
        catalogue().resolve("gpt-4")


def test_a_model_is_eligible_when_prompt_and_answer_fit_its_window() -> None:
    models = catalogue().models
    both = {"small": 60, "large": 60}
    assert eligibility(models, both, 40) == Eligibility(("small", "large"), {})
    assert eligibility(models, both, 41) == Eligibility(("large",), {"small": "too_long"})
    assert eligibility(models, {"small": 100, "large": 199}, None) == Eligibility(("large",), {"small": "too_long"})
    with pytest.raises(NothingEligible, match="window is 200 tokens; the prompt has 60 and 141 were asked"):
        eligibility(models, both, 141)


@pytest.mark.parametrize(
    ("target", "eligible", "model", "reason"),
    [
        (Target.AUTO, ("small", "large"), "large", "no_router"),
        (Target.QUALITY, ("small", "large"), "large", "no_router"),
        (Target.COST, ("small", "large"), "small", "no_router"),
        (Target.AUTO, ("small",), "small", "only_eligible"),
        (Target.COST, ("large",), "large", "only_eligible"),
    ],
)
def test_without_a_router_quality_comes_first(
    target: Target, eligible: tuple[str, ...], model: str, reason: str
) -> None:
    decision = decide_by_rule(target, Eligibility(eligible, {}))
    assert (decision.model, decision.reason, decision.propensity) == (model, reason, 1.0)
