"""What the tests of the policy ask, and under which circumstances."""

from router_model.circumstances import Circumstances, Offer
from router_model.costs import Prices, TokenPrice
from router_model.policy import Action, RouteOptions

SMALL, LARGE = Action.SMALL, Action.LARGE
CALM = Circumstances()
PRICES = Prices(
    small=TokenPrice(input_usd=2e-8, output_usd=8e-8), large=TokenPrice(input_usd=1.38e-7, output_usd=5.52e-7)
)


def priced(*, warm_usd: float = 0.0, pressure: float = 0.0, ttft: tuple[float, float] | None = None) -> Circumstances:
    """A prompt of 40 tokens at PRICES."""
    small_s, large_s = (None, None) if ttft is None else ttft
    return Circumstances(
        small=Offer(prompt_usd=8e-7, output_usd_per_token=8e-8, ttft_s=small_s),
        large=Offer(prompt_usd=5.52e-6, output_usd_per_token=5.52e-7, warm_usd=warm_usd, ttft_s=large_s),
        route_usd=8e-7,
        pressure=pressure,
    )


CASES: dict[str, tuple[RouteOptions, Circumstances]] = {
    "target": (RouteOptions(), CALM),
    "share target": (RouteOptions(target="auto-cost"), CALM),
    "quality": (RouteOptions(quality=0.9), priced()),
    "cost": (RouteOptions(cost=0.6), priced()),
    "limit that nothing breaks": (RouteOptions(max_cost_usd=1.0, max_ttft_s=9.0), priced(ttft=(0.1, 0.2))),
    "load that takes nothing": (RouteOptions(quality=0.9), priced(pressure=0.9)),
    "dear for large": (RouteOptions(max_cost_usd=1e-5), priced()),
    "slow small": (RouteOptions(max_ttft_s=0.5), priced(ttft=(0.9, 0.2))),
    "pinned small": (RouteOptions(pinned=SMALL), CALM),
    "pinned large": (RouteOptions(pinned=LARGE), priced()),
    "tool loop": (RouteOptions(pinned=SMALL, in_tool_loop=True), CALM),
    "one eligible": (RouteOptions(eligible=frozenset({SMALL})), CALM),
    "declined": (RouteOptions(explore=False), CALM),
    "all large": (RouteOptions(quality=1.0), CALM),
    "overload": (RouteOptions(), priced(pressure=0.7)),
}
