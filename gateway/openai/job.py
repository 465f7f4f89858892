"""A request that was read and checked: everything that routing, generation and the records need to know of it."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec

from engine.request import SamplingParams
from gateway.accounts.authenticator import Principal
from gateway.openai.constraints import Asked, in_dialect
from gateway.openai.conversation import conversation_text
from gateway.openai.identity import new_identifier
from gateway.openai.reading import Reading
from gateway.openai.sampling import max_tokens, sampling_params
from gateway.openai.schemas import ChatRequest
from gateway.routing.ask import NOT_ASKED, RoutingAsk
from gateway.routing.catalogue import ServedModel, Wanted
from gateway.routing.eligibility import Eligibility
from gateway.routing.question import Question
from gateway.routing.sessions import SessionKey
from gateway.storage.identifiers import new_id
from grammars.constraint import Constraint
from router_model.facts import RequestFacts


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a request came in and who it is: id in the records, id in the answer."""

    id: uuid.UUID = field(default_factory=new_id)
    completion_id: str = field(default_factory=lambda: new_identifier("chatcmpl-"))
    created: int = field(default_factory=lambda: int(time.time()))
    arrived_s: float = field(default_factory=time.monotonic)

    def elapsed_s(self) -> float:
        """Seconds since it came in."""
        return time.monotonic() - self.arrived_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """prompts: the rendered prompt's token ids by model alias. salt: scopes the prefix cache to the tenant.

    ask: what is asked of the router; asked: of the answer. dialects: of tool calls by model alias, where they differ
    from the one of `asked`. predictions: token ids of the expected answer by model alias, where there is one.
    turn_start: where in the first eligible model's prompt the user's last turn begins. is_uniform: the eligible models
    share tokenizer, template and dialect, so a constraint suits all or none.
    """

    arrival: Arrival
    principal: Principal
    reading: Reading
    asked: Asked
    wanted: Wanted
    eligibility: Eligibility
    prompts: Mapping[str, list[int]]
    salt: str
    deadline_s: float
    session: SessionKey
    ask: RoutingAsk = NOT_ASKED
    dialects: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, list[int]] = field(default_factory=dict)
    turn_start: int = 0
    is_uniform: bool = True

    @property
    def request(self) -> ChatRequest:
        """The request's body."""
        return self.reading.request

    def constraint(self, alias: str) -> Constraint | None:
        """What an answer of that model must satisfy."""
        constraint, dialect = self.asked.constraint, self.dialects.get(alias)
        return constraint if constraint is None or dialect is None else in_dialect(constraint, dialect)

    @property
    def n(self) -> int:
        """Answers asked for."""
        return self.request.n or 1

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of an answer, None for as many as fit."""
        return max_tokens(self.request)

    @property
    def priority(self) -> int:
        """For the scheduler, which runs higher numbers first; clients follow vLLM, where lower numbers run first."""
        return (100 if self.service_tier == "priority" else 0) - (self.request.priority or 0)

    @property
    def service_tier(self) -> str:
        """The tier that served it."""
        return "priority" if self.request.service_tier == "priority" else "default"

    def question(self) -> Question:
        """What the router is asked."""
        first = self.eligibility.eligible[0]
        return Question(
            wanted=self.wanted,
            eligibility=self.eligibility,
            ask=self.ask,
            text=self.text,
            facts=partial(self.facts, first),
            prompts=self.prompts,
            salt=self.salt,
            turn_start=self.turn_start,
            session=self.session,
            in_tool_loop=self.in_tool_loop,
            is_streamed=bool(self.request.stream),
            n=self.n,
            max_tokens=self.max_tokens,
            arrived_s=self.arrival.arrived_s,
            opening=self.opening,
        )

    def opening(self, model: ServedModel) -> SamplingParams | None:
        """By which the answer's first token can be drawn while it is still being routed; None where nobody waits for
        it, or a constraint has a say in it.
        """
        if not self.request.stream or self.constraint(model.alias) is not None:
            return None
        return self.params(model)[0]

    def text(self) -> str:
        """What the router's text features read: all messages, without tools and schemas."""
        return conversation_text(self.request.messages)

    def facts(self, alias: str) -> RequestFacts:
        """What the router may know of the request besides its text."""
        tools = self.asked.tools
        return RequestFacts.of_request(
            prompt_tokens=len(self.prompts[alias]),
            turns=self.turns,
            tool_schemas=[tool.parameters for tool in tools.callable],
            tool_required=bool(tools.callable) and tools.mode == "required",
            response_schema=self.asked.schema,
            has_response_format=self.asked.is_json,
            max_tokens=self.max_tokens,
        )

    @property
    def turns(self) -> int:
        """Messages of the user."""
        return sum(message.role == "user" for message in self.request.messages)

    @property
    def in_tool_loop(self) -> bool:
        """Whether the last message is a tool's result, so that this turn goes on with what an earlier one began."""
        return self.request.messages[-1].role == "tool"

    def remaining_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline_s - self.arrival.elapsed_s()

    def params(self, model: ServedModel) -> list[SamplingParams]:
        """One set per choice. With a seed, choice i samples with seed + i, so that choices differ and repeat."""
        room = model.info.max_model_len - len(self.prompts[model.alias])
        first = sampling_params(self.request, vocab_size=model.info.vocab_size, room=room)
        if first.seed is None:
            return [first] * self.n
        return [msgspec.structs.replace(first, seed=first.seed + i) for i in range(self.n)]
