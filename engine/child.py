"""The engine core in a child process: a fault of a device, an abort in C++ or an exhausted memory ends it, not us.

    this process                              python -m engine.worker --fd N --heartbeat-fd M
    ProcessTransport  --- socketpair --->     reader thread -> core's inbox
                      <-- framed msgpack ---  core -> writer thread
                      <-- heartbeat page ---  core, at each step

The child's end of the socket sees EOF when this process closes or dies, however it dies; then the child exits. A child
whose page says nothing new for too long is killed; how it ended then comes out as any other death does.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from engine.framing import FrameDecoder, FramingError, encode
from engine.heartbeat import HeartbeatPage, Silence
from engine.messages import Command, Event, Failed, Ready, Shutdown
from engine.pair_config import PairConfig
from engine.request import EngineDied
from engine.transport import Death, Listener, LoadFailed

__all__ = ["Patience", "ProcessTransport"]

_READ_BYTES = 2**18
_SLACK = 10.0
_LAST_WORDS_S = 1.0
SPINS = "5000"
"""Rounds, some 50 microseconds, that a thread of libgomp's pool waits awake for more work. Its own 300,000 keep a core
for milliseconds after every step: the one on which this process decides about what the step brought, and sends it.
"""


@dataclass(frozen=True, slots=True)
class Patience:
    """load_s: how long a child may take to load its models. silence_s: how long its step loop may then give no sign of
    life; a step gets ten times what the cost model expects of it, where that is more.
    """

    load_s: float = 600.0
    silence_s: float = 60.0

    def limit_s(self, expected_s: float) -> float:
        """The longest silence in a step that should take `expected_s`."""
        return max(self.silence_s, _SLACK * expected_s)


class ProcessTransport:
    """Starts and watches one child at a time; see Transport."""

    def __init__(self, config: PairConfig, patience: Patience | None = None) -> None:
        self._config, self._patience = config, patience or Patience()
        self._look_s = min(1.0, self._patience.silence_s / 4)
        self._process: subprocess.Popen[bytes] | None = None
        self._heartbeat: HeartbeatPage | None = None
        self._silence: Silence | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pump: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._verdict: Death | None = None
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def silent_s(self) -> float | None:
        """See Transport. Brought up to date once a second."""
        return self._silence.seconds if self._silence is not None else None

    async def open(self, listener: Listener) -> Ready:
        """See Transport."""
        self._is_closing, self._verdict = False, None
        ours = self._spawn()
        decoder: FrameDecoder[Event] = FrameDecoder(Event)
        try:
            async with asyncio.timeout(self._patience.load_s):
                reader, self._writer = await asyncio.open_connection(sock=ours)
                self._writer.write(encode(self._config))
                first, *rest = await self._first_events(reader, decoder)
        except TimeoutError:
            await self._bury(kill=True)
            raise EngineDied(f"the engine's models were not loaded within {self._patience.load_s:g} s") from None
        except BaseException:
            await self._bury(kill=True)
            raise
        if isinstance(first, Failed):
            await self._bury(kill=True)
            raise LoadFailed(first.message)
        if not isinstance(first, Ready):
            await self._bury(kill=True)
            raise EngineDied(f"the engine's process began with {type(first).__name__} instead of Ready")
        if rest:
            listener.on_events(rest)
        self._pump = asyncio.create_task(self._read(reader, decoder, listener), name="engine-events")
        self._silence = Silence(max_pause_s=2 * self._look_s)
        self._watch = asyncio.create_task(self._watch_over(self._silence), name="engine-heartbeat")
        return first

    def send(self, command: Command) -> None:
        """See Transport."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(command))

    async def close(self, grace_s: float) -> None:
        """See Transport."""
        if self._process is None:
            return
        self._is_closing = True
        self.send(Shutdown(grace_s))
        if self._pump is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._pump), grace_s + 1.0)
        await self._bury(kill=True)
        if self._pump is not None:
            await self._pump
            self._pump = None

    def _spawn(self) -> socket.socket:
        """Start a child; returns our end of its socket. Raises EngineDied where the system refuses."""
        with contextlib.ExitStack() as failing:
            try:
                self._heartbeat = HeartbeatPage.create()
                failing.callback(self._heartbeat.close)
                ours, theirs = socket.socketpair()
                failing.callback(ours.close)
                with theirs:
                    fds = theirs.fileno(), self._heartbeat.fd
                    # -P: a folder called `engine` where the server happens to be started is not the engine.
                    command = [sys.executable, "-P", "-m", "engine.worker"]
                    command += ["--fd", str(fds[0]), "--heartbeat-fd", str(fds[1])]
                    # Not on a thread: a cancellation in between would leave a child behind that nobody knows.
                    self._process = subprocess.Popen(
                        command, pass_fds=fds, stdin=subprocess.DEVNULL, env=_environment()
                    )
            except OSError as error:
                raise EngineDied(f"the engine's process could not be started: {error}") from error
            failing.pop_all()
        return ours

    async def _first_events(self, reader: asyncio.StreamReader, decoder: FrameDecoder[Event]) -> list[Event]:
        try:
            while data := await reader.read(_READ_BYTES):
                if events := list(decoder.feed(data)):
                    return events
        except FramingError as error:
            raise EngineDied(str(error)) from error
        except ConnectionError:
            pass  # it died with our first bytes unread
        raise EngineDied(f"the engine's process ended while it loaded: {(await self._bury()).detail}")

    async def _read(self, reader: asyncio.StreamReader, decoder: FrameDecoder[Event], listener: Listener) -> None:
        try:
            while data := await reader.read(_READ_BYTES):
                listener.on_events(list(decoder.feed(data)))
        except FramingError as error:
            self._verdict = Death("protocol", str(error))
        except ConnectionError:
            pass  # it died with commands unread
        if not self._is_closing:
            listener.on_death(await self._bury(kill=self._verdict is not None))

    async def _watch_over(self, silence: Silence) -> None:
        """Kill the child when it is silent for too long."""
        process, heartbeat = self._process, self._heartbeat
        while process is not None and heartbeat is not None and process.poll() is None:
            await asyncio.sleep(self._look_s)
            beat = heartbeat.read()
            silent_s = silence.look(beat.sequence, time.monotonic())
            if silent_s > self._patience.limit_s(beat.expected_s):
                detail = f"silent for {silent_s:.0f} s in a step that should take {beat.expected_s:.3g} s"
                self._verdict = Death("silent", detail)
                process.send_signal(signal.SIGUSR1)
                await asyncio.sleep(_LAST_WORDS_S)
                process.kill()
                break
        # The other end of the socket may live on in a process that the child started: EOF would not come then.
        await asyncio.sleep(_LAST_WORDS_S)
        if self._writer is not None:
            self._writer.transport.abort()

    async def _bury(self, *, kill: bool = False) -> Death:
        """Close our end, wait for the child to be gone, and say how it ended."""
        if self._watch is not None:
            self._watch.cancel()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        process, heartbeat = self._process, self._heartbeat
        self._process = self._heartbeat = self._silence = self._writer = self._watch = None
        cause = "ended before"
        if process is not None:
            if kill:
                process.kill()
            code = await asyncio.to_thread(_wait, process)
            cause = _cause(code)
        working_for = None
        if heartbeat is not None:
            working_for = heartbeat.read().ids
            heartbeat.close()
        if self._verdict is not None:
            return Death(self._verdict.cause, self._verdict.detail, working_for)
        return Death(cause, cause, working_for)


def _cause(code: int) -> str:
    """A `returncode` of Popen in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"


def _wait(process: "subprocess.Popen[bytes]") -> int:
    """The exit code. A child that has closed its socket has nothing left to do: it is not waited for any longer."""
    try:
        return process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _environment() -> dict[str, str]:
    """The child's: ours, with waits of OpenMP threads kept short unless the operator chose how they wait."""
    is_chosen = not os.environ.keys().isdisjoint(("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    return dict(os.environ) if is_chosen else {**os.environ, "GOMP_SPINCOUNT": SPINS}
