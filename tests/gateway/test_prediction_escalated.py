"""An answer of the small model as the prediction of the large one's: what is right in it is verified, not generated."""

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from engine.client import EngineClient
from engine.messages import Finished
from engine.request import SamplingParams
from gateway.engine_host import pair_config
from gateway.openai.constraints import Asked
from gateway.openai.prompt import Prompter
from gateway.settings import EngineSettings, Settings, SpeculationSettings
from grammars.constraint import JsonSchema

ON_MODULE = pytest.mark.asyncio(loop_scope="module")
SCHEMA = JsonSchema(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 40}, "email": {"type": "string", "maxLength": 40}},
        "required": ["name", "email"],
        "additionalProperties": False,
    }
)
REQUESTS = [
    "Write to Ada Okoye, ada@norrland.io, about the kiln.",
    "Please add Tomas Berg (tomas.berg@example.org) to the list.",
    "The new contact is Lin Wei and the address is lin@harbour.net",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[EngineClient]:
    """The bundled pair, drafting from predictions only."""
    settings = Settings(
        engine=EngineSettings(mode="thread", dtype="float32", invariant=True, threads=1, kv_bytes=64 << 20),
        speculation=SpeculationSettings(sources=("prediction",)),
    )
    async with EngineClient.in_process(pair_config(settings)) as client:
        yield client


def prompt(text: str) -> list[int]:
    messages = [{"role": "user", "content": f"{text} Answer in JSON with name and email."}]
    return Prompter.from_folder(Settings().large_path).tokens(messages, Asked())


async def answer(
    client: EngineClient, model: str, tokens: list[int], prediction: Sequence[int] = (), **sampling: float
) -> Finished:
    params = SamplingParams(max_tokens=100, **sampling)  # type: ignore[arg-type]
    events = [
        event async for event in client.submit(model, params, tokens=tokens, constraint=SCHEMA, prediction=prediction)
    ]
    last = events[-1]
    assert isinstance(last, Finished)
    return last


@ON_MODULE
@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1, "seed": 7}], ids=["greedy", "sampled"])
async def test_a_rejected_small_answer_speeds_up_the_large_one_and_changes_nothing(
    client: EngineClient, sampling: dict[str, float]
) -> None:
    accepted = 0
    for text in REQUESTS:
        tokens = prompt(text)
        small = await answer(client, "small", tokens, **sampling)
        alone = await answer(client, "large", tokens, **sampling)
        assert alone.timeline.drafts.get("prediction") is None
        escalated = await answer(client, "large", tokens, small.token_ids, **sampling)
        assert (escalated.token_ids, escalated.reason) == (alone.token_ids, alone.reason)
        found = escalated.timeline.drafts.get("prediction")
        accepted += 0 if found is None else found.accepted
        assert escalated.timeline.steps <= alone.timeline.steps
    assert accepted > 0


@ON_MODULE
async def test_the_large_models_own_answer_is_verified_nearly_whole(client: EngineClient) -> None:
    tokens = prompt(REQUESTS[0])
    alone = await answer(client, "large", tokens, temperature=0)
    foreseen = await answer(client, "large", tokens, alone.token_ids, temperature=0)
    assert foreseen.token_ids == alone.token_ids
    found = foreseen.timeline.drafts["prediction"]
    assert found.accepted > len(alone.token_ids) / 2
    assert foreseen.timeline.steps < alone.timeline.steps
