"""What `model` means, which models could answer, and what `auto` does without a router."""

from typing import Any

import pytest

from engine.messages import ModelInfo
from gateway.routing.ask import RoutingAsk
from gateway.routing.catalogue import Catalogue, Target, UnknownModel, Wanted
from gateway.routing.eligibility import Eligibility, NothingEligible, fits, too_long
from gateway.routing.question import Question
from gateway.routing.rule import decide_by_rule
from gateway.routing.sessions import Sessions
from gateway.routing.wishes import RouterConflict
from router_model.circumstances import Circumstances, Offer
from router_model.facts import RequestFacts


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


def test_a_window_holds_the_prompt_and_what_was_asked_for() -> None:
    small, large = catalogue().models
    assert fits(small, 60, 40)
    assert not fits(small, 60, 41)
    assert fits(large, 60, 41)
    assert fits(small, 99, None)
    assert not fits(small, 100, None), "one token at least is generated"
    refusal = too_long([small, large], {"small": 60, "large": 70}, 141)
    assert refusal.reason == "too_long"
    with pytest.raises(NothingEligible, match="window is 200 tokens; the prompt has 60 and 141 were asked"):
        raise refusal.error


def question(target: Target, eligible: tuple[str, ...] = ("small", "large"), **asked: Any) -> Question:
    return Question(
        wanted=Wanted(target.value, target=target),
        eligibility=Eligibility(eligible),
        ask=RoutingAsk(**asked),
        text=lambda: "",
        facts=RequestFacts,
        prompts={alias: [1] * 10 for alias in eligible},
        salt="",
        session=Sessions().find("a", None, [b"hi"]),
        max_tokens=50,
        arrived_s=0.0,
    )


NOW = Circumstances(
    small=Offer(prompt_usd=1.0, output_usd_per_token=0.1, ttft_s=0.1),
    large=Offer(prompt_usd=10.0, output_usd_per_token=1.0, ttft_s=2.0),
)


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
    decision = decide_by_rule(question(target, eligible), Circumstances(), catalogue())
    assert (decision.model, decision.reason, decision.propensity) == (model, reason, 1.0)
    assert decision.is_calibrated == (model == "large"), "nothing is known of the small model's quality"


@pytest.mark.parametrize(
    ("target", "asked", "model", "reason"),
    [
        (Target.COST, {"quality": 0.1}, "large", "no_router"),
        (Target.AUTO, {"quality": 0.0}, "small", "no_router"),
        (Target.AUTO, {"cost": 0.5}, "small", "no_router"),
        (Target.COST, {"cost": 1.0}, "large", "no_router"),
        (Target.AUTO, {"cost": 1.0, "quality": 0.9}, "large", "no_router"),
        (Target.AUTO, {"max_cost_usd": 60.0}, "large", "no_router"),  # 10 + 50 tokens at 1 each at most
        (Target.AUTO, {"max_cost_usd": 59.9}, "small", "over_budget"),
        (Target.AUTO, {"max_cost_usd": 0.0}, "small", "over_budget"),
        (Target.AUTO, {"max_ttft_ms": 2000.0}, "large", "no_router"),
        (Target.AUTO, {"max_ttft_ms": 1999.0}, "small", "too_slow"),
        (Target.COST, {"max_ttft_ms": 1.0}, "small", "no_router"),  # the other would come later still
    ],
)
def test_without_a_router_wishes_are_held_by_what_is_certain(
    target: Target, asked: dict[str, Any], model: str, reason: str
) -> None:
    decision = decide_by_rule(question(target, **asked), NOW, catalogue())
    assert (decision.model, decision.reason) == (model, reason)


def test_without_a_router_no_one_can_say_what_quality_a_budget_buys() -> None:
    with pytest.raises(RouterConflict, match="no trained router"):
        decide_by_rule(question(Target.AUTO, quality=0.5, cost=0.5), NOW, catalogue())
