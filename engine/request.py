"""A request as the engine sees it: committed tokens, proposed tail, one integer `computed`."""

import enum
from dataclasses import dataclass, field

import msgspec


class FinishReason(enum.StrEnum):
    """Why a request ended. `stop`: end token, stop string, stop token or completed grammar; `length`: max_tokens or
    the window.
    """

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    ERROR = "error"


class CacheMiss(enum.StrEnum):
    """Why the prefix cache held no more of a prompt. `none`: it held all but the last token, which is always computed;
    `cold`: nothing was ever cached for this tenant and model; `diverged`: the next tokens were never cached;
    `evicted`: they were, and had to make room; `disabled`: there is no prefix cache. What a memory of bounded size has
    forgotten counts as never cached.
    """

    NONE = "none"
    COLD = "cold"
    DIVERGED = "diverged"
    EVICTED = "evicted"
    DISABLED = "disabled"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen. Filters apply in this order: bias and penalties, token mask, temperature, top_k,
    top_p, min_p.

    temperature 0 is greedy. top_k 0, top_p 1 and min_p 0 are off. repetition_penalty divides positive and multiplies
    negative logits of tokens seen in prompt or output (Keskar et al., 2019); presence and frequency penalties count
    output tokens only (OpenAI). seed None draws one at admission; the noise is keyed by (seed, position, token id), so
    a draw never depends on the batch. max_tokens None means as many as the window leaves. logprobs None is off, 0 the
    chosen token's only, n the n best beside it; logprobs are those of the distribution before temperature and filters,
    after the token mask.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str: bool = False
    min_tokens: int = 0
    max_tokens: int | None = None
    ignore_eos: bool = False
    logprobs: int | None = None

    @property
    def has_penalties(self) -> bool:
        """Whether a draw depends on the tokens before it."""
        return self.repetition_penalty != 1.0 or bool(self.presence_penalty or self.frequency_penalty)

    def __post_init__(self) -> None:
        """Raise ValueError with what was wrong and what is allowed."""
        checks = [
            (self.temperature >= 0, f"temperature is {self.temperature}: use 0 (greedy) or more"),
            (self.top_k >= 0, f"top_k is {self.top_k}: use 0 (off) or more"),
            (0 < self.top_p <= 1, f"top_p is {self.top_p}: use a value above 0 and at most 1"),
            (0 <= self.min_p <= 1, f"min_p is {self.min_p}: use a value from 0 to 1"),
            (self.repetition_penalty > 0, f"repetition_penalty is {self.repetition_penalty}: use a value above 0"),
            (self.min_tokens >= 0, f"min_tokens is {self.min_tokens}: use 0 or more"),
            (self.max_tokens is None or self.max_tokens >= 1, f"max_tokens is {self.max_tokens}: use 1 or more"),
            (
                self.max_tokens is None or self.min_tokens <= self.max_tokens,
                f"min_tokens is {self.min_tokens}, above max_tokens {self.max_tokens}",
            ),
            (all(self.stop), "stop holds an empty string: leave it out"),
            (self.logprobs is None or 0 <= self.logprobs <= 20, f"logprobs is {self.logprobs}: use 0 to 20"),
        ]
        for holds, message in checks:
            if not holds:
                raise ValueError(message)


class DraftCounts(msgspec.Struct):
    """Tokens that one proposer drafted, and how many of them the target took. The others were verified in vain."""

    drafted: int = 0
    accepted: int = 0

    @property
    def wasted(self) -> int:
        """Tokens that were verified in vain."""
        return self.drafted - self.accepted


class RequestTimeline(msgspec.Struct, kw_only=True):
    """What happened to a request and when. Times are seconds of `time.monotonic()` in the engine's process; 0.0 is not
    yet.

    prompt_tokens = cached_tokens + computed_tokens, but for a preempted request, whose recomputation counts in
    recomputed_tokens. cache_miss: why cached_tokens is not more; None until the request is admitted. drafts: by
    `speculation.Source`, what was drafted and accepted; drafted_tokens and accepted_tokens are the sums. forced_tokens:
    committed without asking the model, since the grammar allowed no other.
    """

    arrived_s: float = 0.0
    admitted_s: float = 0.0
    first_token_s: float = 0.0
    finished_s: float = 0.0
    token_times_s: list[float] = []
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cache_miss: CacheMiss | None = None
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    drafts: dict[str, DraftCounts] = {}
    forced_tokens: int = 0
    preemptions: int = 0
    mask_s: float = 0.0
    steps: int = 0


class TokenLogprob(msgspec.Struct, frozen=True):
    """One generated token's log-probability and its best rivals, as (token id, logprob), best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class RequestStatus(enum.Enum):
    """Where a request stands with the scheduler. There is no prefill and no decode state: `computed` says it all."""

    WAITING = "waiting"
    RUNNING = "running"
    HELD = "held"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Request:
    """The scheduler's view of a request; core.py keeps what concerns text, sampling and constraints.

    tokens: prompt and accepted output. tail: proposed tokens after them, which a step may reject; tail_parents: of each
    its parent in the tail, -1 for the last of tokens, or empty where the tail is a chain. computed: the keys
    and values of tokens[:computed] lie in `blocks`, and in `other_blocks` for the KV groups after the first, one list
    each; frozen_tables: both as tuples, or empty since they changed. `computed == len(tokens)` holds only while the
    logits of the last token are kept (`logits_kept`): a prepared request, until it goes on. keys: content keys of the
    first full blocks, each hashed once, of which `registered` are offered to the prefix cache. furthest: the end of
    what was ever computed or cached, to tell recomputation from computation. salt: the tenant's, see Submit. rank:
    sorts requests as they are served, lowest first; given by the scheduler. turn_start: see Prepare.
    """

    id: str
    tokens: list[int]
    priority: int = 0
    deadline_s: float | None = None
    root_key: bytes = b""
    salt: str = ""
    holds: bool = False
    wants_state: bool = False
    turn_start: int = 0
    n_prompt: int = 0
    tail: list[int] = field(default_factory=list)
    tail_parents: list[int] = field(default_factory=list)
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    other_blocks: list[list[int]] = field(default_factory=list)
    frozen_tables: tuple[tuple[int, ...], ...] = ()
    keys: list[bytes] = field(default_factory=list)
    arrival: int = 0
    rank: tuple[float, int] = (0.0, 0)
    status: RequestStatus = RequestStatus.WAITING
    logits_kept: bool = False
    registered: int = 0
    furthest: int = 0
    queued_tokens: int = 0
    timeline: RequestTimeline = field(default_factory=RequestTimeline)

    def __post_init__(self) -> None:
        """Count the prompt."""
        self.n_prompt = self.n_prompt or len(self.tokens)

    def clear_tail(self) -> None:
        """Drop what was proposed."""
        self.cut_tail(0)

    def cut_tail(self, n: int) -> None:
        """Drop what was proposed but for the first n tokens, which are a tree as well."""
        del self.tail[n:]
        del self.tail_parents[n:]

    @property
    def remaining(self) -> int:
        """Tokens that a step must compute until this request can yield its next one."""
        return len(self.tokens) + len(self.tail) - self.computed


class EngineError(Exception):
    """Base of what the engine tells a caller; `code` is stable and snake_case."""

    code = "engine_error"


class RequestRefused(EngineError):
    """Refused at admission: it could never fit (`too_long`), or not now (`overloaded`, then `retry_after_s` is set)."""

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.retry_after_s = code, retry_after_s


class EngineDied(EngineError):
    """The engine's process ended while the request was in flight."""

    code = "engine_died"
