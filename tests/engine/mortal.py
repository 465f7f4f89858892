"""A client over a transport whose engine answers nothing by itself, and dies and comes back as the test says."""

import asyncio

from engine.client import EngineClient
from engine.messages import Command, Delta, Event, Finished, ModelInfo, Prepared, Ready, Submit
from engine.request import FinishReason, RequestTimeline, SamplingParams
from engine.supervision import RestartPolicy
from engine.transport import Death, Listener

GREEDY = SamplingParams(temperature=0, max_tokens=8)


class Mortal:
    """The transport. opens: what the next calls of `open` raise, None for none."""

    def __init__(self) -> None:
        self.silent_s: float | None = None
        self.sent: list[Command] = []
        self.listener: Listener | None = None
        self.opens: list[Exception | None] = []
        self.n_opened = 0

    async def open(self, listener: Listener) -> Ready:
        """See Transport."""
        self.n_opened += 1
        error = self.opens.pop(0) if self.opens else None
        if error is not None:
            raise error
        self.listener = listener
        return Ready([ModelInfo("m", "", 1, 1, 1, "float32", 1, 1, 1, "")], 0.0)

    def send(self, command: Command) -> None:
        """See Transport."""
        self.sent.append(command)

    async def close(self, grace_s: float) -> None:  # noqa: ARG002 - the protocol names it
        """See Transport."""
        self.listener = None

    def answer(self, *events: Event) -> None:
        """Let the engine send events."""
        assert self.listener is not None
        self.listener.on_events(events)

    def die(self, *working_for: str) -> None:
        """End the engine while it works for these; for nobody knows whom where none is named."""
        assert self.listener is not None
        self.listener.on_death(Death("SIGKILL", "test", frozenset(working_for) or None))

    def submits(self) -> list[Submit]:
        """What was submitted so far."""
        return [command for command in self.sent if isinstance(command, Submit)]


async def started(policy: RestartPolicy | None = None) -> tuple[Mortal, EngineClient]:
    """A transport, and a client that was started on it; restarts are quick unless the policy says otherwise."""
    transport = Mortal()
    client = EngineClient(transport, policy or RestartPolicy(first_s=0.001, max_s=0.004))
    await client.start()
    return transport, client


async def settle() -> None:
    """Let other tasks run for a while."""
    for _ in range(20):
        await asyncio.sleep(0.001)


async def collect(client: EngineClient, tokens: list[int] | None = None, handle: str | None = None) -> Finished:
    """The terminal event of a request."""
    events: list[Delta | Finished] = [event async for event in client.submit("m", GREEDY, tokens=tokens, handle=handle)]
    last = events[-1]
    assert isinstance(last, Finished)
    return last


def finished(id: str) -> Finished:
    """An answer's end."""
    return Finished(id=id, reason=FinishReason.STOP, text="", token_ids=[], timeline=RequestTimeline())


def prepared(id: str) -> Prepared:
    """A prefill's end."""
    return Prepared(
        id=id,
        handle=id,
        state=b"",
        state_shape=(),
        entropy=0.0,
        margin=0.0,
        prompt_tokens=2,
        cached_tokens=0,
        computed_tokens=2,
        queue_s=0.0,
        prefill_s=0.0,
    )
