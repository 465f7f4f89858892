"""Grades answers: by comparing, by their form, or by the operator's own command."""

import asyncio
import contextlib
import logging
import os
import shlex
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgspec
from msgspec import UNSET, UnsetType

from gateway.openai.schemas import ChatRequest
from gateway.routing.model_answer import ModelAnswer
from gateway.settings import RoutingSettings
from router_model.grading import Expected, GraderName, compare, schema_valid

log = logging.getLogger(__name__)

_MAX_INPUT_BYTES, _MAX_OUTPUT_BYTES = 4 << 20, 64 << 10
_WARN_EVERY = 100


class GraderError(ValueError):
    """A grader cannot be used as asked; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedAnswer:
    """An answer and all that a grader may know of it.

    request: the body of the chat request. text: the answer as the model wrote it, calls included. ended: it was neither
    cut nor cancelled. valid: it satisfies its constraint; None where there is none or nothing could check it. expected:
    UNSET where nobody knows; None means that no call was due.
    """

    request: Mapping[str, Any]
    model: str
    text: str
    ended: bool
    valid: bool | None
    expected: Expected | UnsetType = UNSET

    @classmethod
    def of(
        cls, request: ChatRequest | Mapping[str, Any], answer: ModelAnswer, expected: Expected | UnsetType = UNSET
    ) -> Self:
        """A model's answer to a request. Of one that was read, what was left out or is empty stays out."""
        if isinstance(request, ChatRequest):
            built: dict[str, Any] = msgspec.to_builtins(request)
            request = {name: value for name, value in built.items() if value not in (None, [], {})}
        return cls(
            request=request,
            model=answer.model,
            text=answer.finished.text,
            ended=answer.ended,
            valid=answer.valid,
            expected=expected,
        )


class Grader(Protocol):
    """Gives scores. name: what the labels are said to be from."""

    name: str

    async def grade(self, answer: GradedAnswer) -> float | None:
        """0 to 1; None where it could not be graded."""


class FormGrader(Grader):
    """Grades by form alone, see `schema_valid`. The fallback where nothing else was configured."""

    name = GraderName.SCHEMA_VALID.value

    async def grade(self, answer: GradedAnswer) -> float | None:
        """1 or 0."""
        return schema_valid(ended=answer.ended, valid=answer.valid)


class ComparingGrader(Grader):
    """Compares with the expected answer; what has none stays ungraded."""

    def __init__(self, grader: GraderName) -> None:
        """Raises GraderError for a name that does not compare."""
        if not grader.needs_expected:
            raise GraderError(f"the grader {grader.value} does not compare with an expected answer")
        self._grader, self.name = grader, grader.value

    async def grade(self, answer: GradedAnswer) -> float | None:
        """1 or 0. Raises ValueError for an expected answer that it cannot compare with."""
        if isinstance(answer.expected, UnsetType):
            return None
        return float(compare(self._grader, answer.text, answer.expected))


class CommandGrader(Grader):
    """Runs a command for each answer: JSON on its standard input, a number from 0 to 1 on the last line of its output.

    The input is one object with request, answer, model, ended, valid and, where it is known, expected. There is no
    shell, what the command writes to standard error goes to ours, and none of our settings are in its environment. It
    and all it started are killed once its time is over. An answer that it fails on stays ungraded, and is counted.
    """

    name = GraderName.COMMAND.value

    def __init__(self, command: str, *, timeout_s: float, at_once: int = 2) -> None:
        """command: words as in a shell. Raises GraderError for one that has no words, or ends within a quotation."""
        try:
            self._argv = shlex.split(command)
        except ValueError as error:
            raise GraderError(f"the grader's command {command!r} cannot be read: {error}") from error
        if not self._argv:
            raise GraderError("the grader's command is empty: name a program")
        self._timeout_s, self._free = timeout_s, asyncio.Semaphore(at_once)
        self.failures = 0

    async def grade(self, answer: GradedAnswer) -> float | None:
        """The command's number; None, with a line in the log now and then, where it gave none."""
        data = msgspec.json.encode(
            {
                "request": answer.request,
                "answer": answer.text,
                "model": answer.model,
                "ended": answer.ended,
                "valid": answer.valid,
            }
            | ({} if isinstance(answer.expected, UnsetType) else {"expected": answer.expected})
        )
        try:
            if len(data) > _MAX_INPUT_BYTES:
                raise GraderError(f"request and answer have {len(data)} bytes, more than {_MAX_INPUT_BYTES}")
            async with self._free:
                return _score(await self._run(data))
        except (GraderError, OSError) as error:
            if self.failures % _WARN_EVERY == 0:
                log.warning("an answer stays ungraded (%d before it): %s", self.failures, error)
            self.failures += 1
            return None

    async def _run(self, data: bytes) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                output, _ = await asyncio.gather(_read(process), _feed(process, data))
                code = await process.wait()
        except TimeoutError:
            raise GraderError(f"the grader took longer than {self._timeout_s:g} s") from None
        finally:
            # The whole group, also after an orderly end: what it left behind must not pile up.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.returncode is None:
                await process.wait()
        if code != 0:
            raise GraderError(f"the grader ended with code {code}")
        return output


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    """Write the input; a grader need not read all of it."""
    if process.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _read(process: asyncio.subprocess.Process) -> bytes:
    if process.stdout is None:
        return b""
    output = b""
    while chunk := await process.stdout.read(_MAX_OUTPUT_BYTES):
        output += chunk
        if len(output) > _MAX_OUTPUT_BYTES:
            raise GraderError(f"the grader wrote more than {_MAX_OUTPUT_BYTES} bytes")
    return output


def _score(output: bytes) -> float:
    lines = output.decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    try:
        score = float(last)
    except ValueError:
        score = float("nan")
    if not 0 <= score <= 1:
        raise GraderError("the last line of the grader's output is no number from 0 to 1")
    return score


def live_grader(routing: RoutingSettings, *, at_once: int) -> Grader:
    """What grades live answers, of which nobody knows what was expected: the command, or else their form.

    at_once: most commands at the same time.
    """
    if routing.grader_command is None:
        return FormGrader()
    return CommandGrader(routing.grader_command, timeout_s=routing.grader_timeout_s, at_once=at_once)


def make_grader(name: GraderName, *, command: str | None, timeout_s: float, at_once: int = 2) -> Grader:
    """The grader of that name. Raises GraderError where the command is asked for and there is none."""
    if name is GraderName.SCHEMA_VALID:
        return FormGrader()
    if name is not GraderName.COMMAND:
        return ComparingGrader(name)
    if command is None:
        raise GraderError("there is no grader command: set routing.grader_command")
    return CommandGrader(command, timeout_s=timeout_s, at_once=at_once)
