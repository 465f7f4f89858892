"""What a request asks of the router, as its body's `router` object says it."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from router_model.options import Cascade

Share = Annotated[float, Meta(ge=0, le=1)]
Amount = Annotated[float, Meta(ge=0, le=1e9)]
_MS_PER_S = 1000.0

CASCADES = tuple(mode.value for mode in Cascade)
"""When the large model answers again, from never to most often."""


class RoutingAsk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Null or absent is not asked. A header says the same as the member of its name."""

    quality: Annotated[
        Share | None,
        Meta(description="Quality to keep, 0 to 1, a share of what `routing.quality_scale` says; instead of a target."),
    ] = None
    cost: Annotated[
        Share | None,
        Meta(description="Budget, 0 to 1, a share of what the large model alone would cost; instead of a target."),
    ] = None
    max_cost_usd: Annotated[
        Amount | None, Meta(description="Limit on what this request is expected to cost, in USD.")
    ] = None
    max_ttft_ms: Annotated[
        Amount | None, Meta(description="Limit on the predicted time to the first token, in milliseconds.")
    ] = None
    min_model: Annotated[
        Literal["small", "large"] | None, Meta(description="The least model that may answer: `large` rules out small.")
    ] = None
    session: Annotated[
        Annotated[str, Meta(min_length=1, max_length=256)] | None,
        Meta(description="Your own name for this conversation; without one it is known by its messages."),
    ] = None
    route: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")] | None,
        Meta(description="Kind of traffic, for calibration and reports: up to 64 letters, digits and `._:/-`."),
    ] = None
    explain: Annotated[bool | None, Meta(description="Return the evidence under `router.explain`.")] = None
    explore: Annotated[
        bool | None,
        Meta(description="`off` keeps this request out of exploration, comparisons with the other model, and grading."),
    ] = None
    cascade: Annotated[
        Literal["off", "validation", "confidence"] | None,
        Meta(description="When the large model may answer again; no more than `routing.cascade`."),
    ] = None

    @property
    def max_ttft_s(self) -> float | None:
        """The limit in seconds."""
        return None if self.max_ttft_ms is None else self.max_ttft_ms / _MS_PER_S

    @property
    def may_explore(self) -> bool:
        """Whether it may be used to learn from."""
        return self.explore is not False


NOT_ASKED = RoutingAsk()
