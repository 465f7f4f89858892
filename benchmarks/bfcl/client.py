"""One question to any OpenAI-compatible server, and what came back."""

import asyncio
import email.utils
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import openai

from benchmarks.bfcl.ast_rules import Call, Finding, Mistake
from benchmarks.bfcl.definitions import request_tools
from benchmarks.bfcl.rows import Row
from benchmarks.bfcl.tool_names import ToolNames

BUSY = (429, 503)
_REFUSALS = ("constraint_refused", "invalid_function_parameters")
_LONGEST_PAUSE_S = 60.0
_MEANT_FOR_ALL = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)


class UnusableServer(Exception):
    """The server refuses every request alike: an unknown model, a wrong key, another address."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are put. is_closed: objects admit only the properties that they name.

    copied: strings come from the conversation (Pointsman's `copy_strings`); retries: after 429 and 503.
    """

    model: str
    tool_choice: Literal["auto", "required"] = "auto"
    temperature: float | None = 0.0
    max_tokens: int = 512
    is_closed: bool = False
    copied: bool = False
    retries: int = 8

    def body(self, row: Row) -> dict[str, Any]:
        """The request. Raises RowError where the row's tools cannot be described."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(row.messages),
            "tools": request_tools(row, names_of(row), is_closed=self.is_closed),
            "tool_choice": self.tool_choice,
            "max_tokens": self.max_tokens,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.copied:
            body["extra_body"] = {"structured_outputs": {"copy_strings": True}}
        return body


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's calls, or why there is no answer.

    latency_s: of the last attempt, at the client. tokens: None where the server counts none. is_cut: it was longer than
    allowed.
    """

    calls: tuple[Call, ...] = ()
    failure: Finding | None = None
    latency_s: float = 0.0
    retries: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    is_cut: bool = False


def names_of(row: Row) -> ToolNames:
    """How the row's tools are called in a request."""
    return ToolNames(function.name for function in row.functions)


async def ask(client: openai.AsyncOpenAI, asking: Asking, row: Row) -> Reply:
    """The reply to a question; a server that is busy is asked again when it says so, else after ever longer pauses.

    client: without retries of its own. Raises UnusableServer for what would fail for every row.
    """
    names, body, attempt = names_of(row), asking.body(row), 0
    while True:
        began = time.perf_counter()
        try:
            answer = await client.chat.completions.create(**body)
        except _MEANT_FOR_ALL as error:
            raise UnusableServer(str(error)) from error
        except openai.APIStatusError as error:
            if error.status_code not in BUSY or attempt == asking.retries:
                return Reply(failure=_failure(error), latency_s=time.perf_counter() - began, retries=attempt)
            await asyncio.sleep(pause_s(error.response.headers.get("retry-after"), attempt))
            attempt += 1
        except openai.OpenAIError as error:  # no connection, no answer in time, or one that is no answer
            failure = Finding(Mistake.SERVER, f"{type(error).__name__}: {error}")
            return Reply(failure=failure, latency_s=time.perf_counter() - began, retries=attempt)
        else:
            return _read(answer, names, time.perf_counter() - began, attempt)


async def ask_all(
    client: openai.AsyncOpenAI, asking: Asking, rows: list[Row], concurrency: int, done: Callable[[Row, Reply], None]
) -> None:
    """All rows, so many at once; `done` hears of each as it is answered. Raises UnusableServer at the first sign."""
    waiting = iter(rows)

    async def work() -> None:
        for row in waiting:
            done(row, await ask(client, asking, row))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except* UnusableServer as several:
        raise several.exceptions[0] from None


def pause_s(retry_after: str | None, attempt: int) -> float:
    """Seconds to wait: what Retry-After says (seconds or a date; RFC 9110, section 10.2.3), else half a second, doubled
    with every attempt. At most a minute."""
    said = None if retry_after is None else _seconds(retry_after)
    return min(max(0.5 * 2.0**attempt if said is None else said, 0.0), _LONGEST_PAUSE_S)


def _seconds(retry_after: str) -> float | None:
    """None for what is neither a number nor a date."""
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            return email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return wait if math.isfinite(wait) else None


def _failure(error: openai.APIStatusError) -> Finding:
    """Whether it was the tools that the server did not take."""
    is_refusal = error.code in _REFUSALS or (error.param or "").startswith("tools")
    mistake = Mistake.REFUSED_SCHEMA if error.status_code in (400, 422) and is_refusal else Mistake.SERVER
    return Finding(mistake, str(error))


def _read(answer: Any, names: ToolNames, latency_s: float, retries: int) -> Reply:
    """answer: a chat completion, as far as the server keeps to the form."""
    try:
        choice = answer.choices[0]
        calls = tuple(
            Call(names.original(call.function.name), _arguments(call.function.arguments))
            for call in choice.message.tool_calls or ()
        )
        is_cut = choice.finish_reason == "length"
    except (AttributeError, IndexError, TypeError) as error:
        failure = Finding(Mistake.SERVER, f"the reply is no chat completion: {error}")
        return Reply(failure=failure, latency_s=latency_s, retries=retries)
    usage = getattr(answer, "usage", None)
    return Reply(
        calls,
        latency_s=latency_s,
        retries=retries,
        prompt_tokens=getattr(usage, "prompt_tokens", None),
        completion_tokens=getattr(usage, "completion_tokens", None),
        is_cut=is_cut,
    )


def _arguments(text: Any) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
