"""What is known when a request is decided, besides its features: prices, warm prefixes, expected waits, load."""

from dataclasses import dataclass, field

from router_model.options import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one model would take for this request. The defaults mean that nothing is known.

    prompt_usd: price of the prompt, its cached part at the cache's price. output_usd_per_token: price of a generated
    token. ttft_s: predicted time to the first token, None is unknown. warm_tokens: prompt tokens in its prefix cache.
    warm_usd: what those save against computing them (already taken off prompt_usd).
    """

    prompt_usd: float = 0.0
    output_usd_per_token: float = 0.0
    ttft_s: float | None = None
    warm_tokens: int = 0
    warm_usd: float = 0.0

    @property
    def has_price(self) -> bool:
        """Whether anything is known of its price."""
        return self.prompt_usd > 0 or self.output_usd_per_token > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """Both models' offers. `Circumstances()`: nothing known, equal costs and no load.

    route_usd: what the prefill that the router reads costs in addition if the large model answers. pressure: 0 (no
    overload) to 1 (the large model should take nothing that it need not). max_tokens: the most that an answer may have,
    None is as many as fit. ValueError: pressure outside [0, 1].
    """

    small: Offer = field(default_factory=Offer)
    large: Offer = field(default_factory=Offer)
    route_usd: float = 0.0
    pressure: float = 0.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        """Check the pressure; `not 0 <= x` also refuses NaN."""
        if not 0 <= self.pressure <= 1:
            raise ValueError(f"the pressure is {self.pressure}: use 0 (no overload) to 1")

    def offer(self, action: Action) -> Offer:
        """The offer of that model."""
        return self.small if action is Action.SMALL else self.large

    @property
    def has_prices(self) -> bool:
        """Whether prices of the models are known."""
        return self.small.has_price or self.large.has_price
