"""Clients of an engine that dies at any time: every submit comes to exactly one end, and nothing is left behind."""

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.client import EngineClient
from engine.messages import Delta, Failed, Finished
from engine.request import EngineDied, EngineError
from tests.engine.mortal import GREEDY, Mortal, finished, settle, started

ACTS = st.lists(
    st.tuples(st.sampled_from(["submit", "submit", "tell", "finish", "fail", "leave", "die"]), st.integers(0, 9)),
    min_size=3,
    max_size=14,
)


class Clients:
    """Tasks that read a stream each, and how each ended."""

    def __init__(self, transport: Mortal) -> None:
        self.transport = transport
        self.tasks: list[asyncio.Task[None]] = []
        self.ends: dict[int, list[str]] = {}

    def submit(self, client: EngineClient) -> None:
        number = len(self.tasks)
        self.ends[number] = []
        self.tasks.append(asyncio.create_task(self._read(client, number)))

    async def _read(self, client: EngineClient, number: int) -> None:
        ends = self.ends[number]
        try:
            async for event in client.submit("m", GREEDY, tokens=[1, 2, number]):
                assert not ends, "told something after its end"
                if isinstance(event, Finished):
                    ends.append("finished")
        except EngineDied:
            ends.append("died")
        except EngineError as error:
            ends.append(error.code)
        except asyncio.CancelledError:
            ends.append("left")

    def open_ids(self) -> list[str]:
        """Submits that the living engine has and that have not ended, oldest first."""
        running = {number for number, task in enumerate(self.tasks) if not task.done()}
        last = {(command.tokens or [])[-1]: command.id for command in self.transport.submits()}
        return [name for number, name in sorted(last.items()) if number in running]


@settings(max_examples=25)
@given(acts=ACTS)
def test_every_submit_ends_exactly_once_whenever_the_engine_dies(acts: list[tuple[str, int]]) -> None:
    asyncio.run(play(acts))


async def play(acts: list[tuple[str, int]]) -> None:
    transport, client = await started()
    clients = Clients(transport)
    for act, which in acts:
        ids = clients.open_ids()
        if act == "submit":
            clients.submit(client)
        elif act == "leave" and clients.tasks:
            clients.tasks[which % len(clients.tasks)].cancel()
        elif act == "die" and client.health.state == "up":
            transport.die(*ids[: which % 3])
        elif ids and client.health.state == "up":
            name = ids[which % len(ids)]
            told = {
                "tell": Delta(name, "a", [1]),
                "finish": finished(name),
                "fail": Failed(id=name, code="grammar_fault", message="sabotaged"),
            }
            if act in told:
                transport.answer(told[act])
        await (settle() if act == "die" else asyncio.sleep(0))
        await asyncio.sleep(0)
    await settle()
    for name in clients.open_ids():
        transport.answer(finished(name))
    await asyncio.wait_for(asyncio.gather(*clients.tasks), 10.0)
    counted = Counter(len(ends) for ends in clients.ends.values())
    assert set(counted) <= {1}, clients.ends  # 31
    assert client.n_calls == 0
    await client.close()
