"""The engine core in a child process: a fault of a device, an abort in C++ or an exhausted memory ends it, not us.

    this process                              python -m engine.worker --fd N
    ProcessTransport  --- socketpair --->     reader thread -> core's inbox
                      <-- framed msgpack ---  core -> writer thread

The child's end of the socket sees EOF when this process closes or dies, however it dies; then the child exits.
"""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys

from engine.framing import FrameDecoder, FramingError, encode
from engine.messages import Command, Event, Failed, Ready, Shutdown
from engine.pair_config import PairConfig
from engine.request import EngineDied
from engine.transport import Listener, LoadFailed

__all__ = ["ProcessTransport"]

_READ_BYTES = 2**18


class ProcessTransport:
    """Starts and watches one child at a time; see Transport."""

    def __init__(self, config: PairConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pump: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._process.pid if self._process is not None else None

    async def open(self, listener: Listener) -> Ready:
        """See Transport."""
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            # -P: a folder called `engine` where the server happens to be started is not the engine.
            command = [sys.executable, "-P", "-m", "engine.worker", "--fd", str(fd)]
            self._process = await asyncio.to_thread(subprocess.Popen, command, pass_fds=(fd,), stdin=subprocess.DEVNULL)
        self._is_closing = False
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._writer.write(encode(self._config))
        decoder: FrameDecoder[Event] = FrameDecoder(Event)
        try:
            first, *rest = await self._first_events(reader, decoder)
        except BaseException:
            await self._reap(kill=True)
            raise
        if isinstance(first, Failed):
            await self._reap(kill=True)
            raise LoadFailed(first.message)
        if not isinstance(first, Ready):
            await self._reap(kill=True)
            raise EngineDied(f"the engine's process began with {type(first).__name__} instead of Ready")
        if rest:
            listener.on_events(rest)
        self._pump = asyncio.create_task(self._read(reader, decoder, listener), name="engine-events")
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
        await self._reap(kill=True)
        if self._pump is not None:
            await self._pump
            self._pump = None

    async def _first_events(self, reader: asyncio.StreamReader, decoder: FrameDecoder[Event]) -> list[Event]:
        with contextlib.suppress(ConnectionError):  # it died with our first bytes unread
            while data := await reader.read(_READ_BYTES):
                if events := list(decoder.feed(data)):
                    return events
        raise EngineDied(f"the engine's process ended while it loaded: {await self._reap()}")

    async def _read(self, reader: asyncio.StreamReader, decoder: FrameDecoder[Event], listener: Listener) -> None:
        reason = ""
        try:
            while data := await reader.read(_READ_BYTES):
                listener.on_events(list(decoder.feed(data)))
        except (OSError, FramingError) as error:
            reason = f"{error}; "
        if not self._is_closing:
            listener.on_death(reason + await self._reap(kill=bool(reason)))

    async def _reap(self, *, kill: bool = False) -> str:
        """Close our end, wait for the child to be gone, and say how it ended."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None
        process, self._process = self._process, None
        if process is None:
            return "it was ended already"
        if kill:
            process.kill()
        code = await asyncio.to_thread(process.wait)
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
