"""What the router is asked about one request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.request import SamplingParams
from gateway.routing.ask import NOT_ASKED, RoutingAsk
from gateway.routing.catalogue import ServedModel, Wanted
from gateway.routing.eligibility import Eligibility
from gateway.routing.sessions import SessionKey
from router_model.facts import RequestFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """text: all messages; facts: counts; both are made when they are needed only. prompts: token ids by alias.

    salt: scopes the prefix cache. turn_start: token of the small model's prompt with which the user's last turn begins.
    in_tool_loop: the last message is a tool's result. is_streamed: answers leave as they come. n: answers asked for.
    max_tokens: of an answer, None is as many as fit. arrived_s: `time.monotonic()` of the request's arrival. opening:
    by which an answer's first token may be drawn on a model beside the prefill, before it is known who answers; None
    where it may not.
    """

    wanted: Wanted
    eligibility: Eligibility
    text: Callable[[], str]
    facts: Callable[[], RequestFacts]
    prompts: Mapping[str, Sequence[int]]
    salt: str
    session: SessionKey
    ask: RoutingAsk = NOT_ASKED
    turn_start: int = 0
    in_tool_loop: bool = False
    is_streamed: bool = False
    n: int = 1
    max_tokens: int | None = None
    arrived_s: float
    opening: Callable[[ServedModel], SamplingParams | None] = lambda _: None

    @property
    def wishes(self) -> dict[str, float]:
        """The numbers that were asked for, by name, for decision rows."""
        ask = self.ask
        named = {
            "quality": ask.quality,
            "cost": ask.cost,
            "max_cost_usd": ask.max_cost_usd,
            "max_ttft_s": ask.max_ttft_s,
        }
        return {name: value for name, value in named.items() if value is not None}
