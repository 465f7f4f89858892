"""The second chance: what the small model answered is judged before any of it is sent, and where it will not do the
large model answers instead.

An answer that failed (it breaks its constraint, was cut off, is empty, or refuses) is always answered again; with
`confidence` so is one that is unlikely to be right, by the router's own model of answers. A request that was explored
keeps its first action: the cascade is a part of what that action does, and its row says that it escalated.
"""

import enum
from dataclasses import dataclass

from gateway.routing.ask import RoutingAsk
from gateway.routing.decision import Decision, Reason
from gateway.routing.router import Judge
from router_model.answer import PARTIAL, Answer
from router_model.escalation import EscalateReason, failure

__all__ = ["PARTIAL", "Chance", "EscalateReason", "NotEscalated", "second_chance"]


class NotEscalated(enum.StrEnum):
    """Why it did not, although the small answer would not do. Stored, so stable.

    refused: the engine did not take it, or the second answer failed. limited: the request's own limits forbade it.
    """

    REFUSED = "escalation_refused"
    LIMITED = "escalation_limited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """What the small answer of one request is judged by.

    judge: the policy's word on an answer; None: only failures count. hold_tokens: how many tokens are held back until
    then; None is all. large_tokens: expected length of the large model's answer, None is unknown. max_cost_usd,
    max_ttft_s: the request's limits. keeps_model: in a tool loop only an answer that cannot be sent at all changes the
    model.
    """

    judge: Judge | None = None
    hold_tokens: int | None = None
    large_tokens: float | None = None
    max_cost_usd: float | None = None
    max_ttft_s: float | None = None
    keeps_model: bool = False

    @property
    def reads_logprobs(self) -> bool:
        """Whether the small answer's logprobs are needed."""
        return self.judge is not None and self.hold_tokens != 0

    def failure(self, answer: Answer, said: str | None) -> EscalateReason | None:
        """Why the answer failed; None where it did not. said: its free text, None where a constraint says what it must
        be.
        """
        return failure(answer, said, large_tokens=self.large_tokens, keeps_model=self.keeps_model)

    def allows(
        self,
        *,
        spent_usd: float,
        large_usd: float,
        elapsed_s: float,
        wait_s: float,
        took_s: float,
        remaining_s: float,
    ) -> bool:
        """Whether the request's own limits leave room for a second answer.

        spent_usd: by now; large_usd: expected of the second answer. elapsed_s: since arrival; wait_s: until the second
        answer's first token. took_s: the small model's answer, less than which the large one's will hardly take;
        remaining_s: until the deadline.
        """
        if self.max_cost_usd is not None and spent_usd + large_usd > self.max_cost_usd:
            return False
        if self.max_ttft_s is not None and elapsed_s + wait_s > self.max_ttft_s:
            return False
        return remaining_s > took_s


def second_chance(
    decision: Decision,
    judge: Judge | None,
    ask: RoutingAsk,
    *,
    mode: str,
    n: int,
    in_tool_loop: bool,
    hold_tokens: int | None,
) -> Chance | None:
    """The chance that a request's answer gets; None where it is sent as it comes.

    judge: the policy's, None where no trained router decided. mode: `off`, `validation` or `confidence`. n: answers
    asked for: several are never judged. hold_tokens: None for answers that are not streamed.
    """
    is_routed = decision.model == "small" and decision.reason != Reason.EXPLICIT and "large" in decision.eligible
    if mode == "off" or n > 1 or not is_routed:
        return None
    return Chance(
        judge=judge if mode == "confidence" and not in_tool_loop else None,
        hold_tokens=hold_tokens,
        large_tokens=decision.expected_tokens.get("large"),
        max_cost_usd=ask.max_cost_usd,
        max_ttft_s=ask.max_ttft_s,
        keeps_model=in_tool_loop,
    )
