"""A request's prediction: read or refused, encoded for each model, and handed to the engine with every choice."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.client import EngineClient
from engine.messages import ModelInfo
from engine.tokenizer import Tokenizer
from gateway.accounts.authenticator import Principal
from gateway.openai.errors import ApiError
from gateway.openai.intake import Intake
from gateway.openai.job import Arrival, Job
from gateway.openai.prompt import Prompter
from gateway.openai.run import Run
from gateway.routing.catalogue import Catalogue
from gateway.routing.load import Load
from gateway.routing.offers import Offers
from gateway.routing.router import Router
from gateway.settings import RoutingSettings, Settings
from gateway.settings_loader import load_settings
from tests.engine.checkpoints import save_tokenizer
from tests.engine.mortal import finished, settle, started

TEXT = "the sky is blue\nand the sea is green"
WINDOW = 400


@pytest.fixture(scope="module")
def prompter(tmp_path_factory: pytest.TempPathFactory) -> Prompter:
    folder = tmp_path_factory.mktemp("prompter")
    save_tokenizer(folder)
    return Prompter.from_folder(folder)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Prompter:
    """A prompter with a vocabulary of its own, in which the same text has other tokens."""
    folder = tmp_path_factory.mktemp("other")
    save_tokenizer(folder, vocab_size=300)
    return Prompter.from_folder(folder)


def info(name: str, window: int) -> ModelInfo:
    return ModelInfo(name, f"/m/tiny-{name}", 1, 512, window, "float32", 1, 1, 16, f"{name}-0123456789")


def intake(
    small: Prompter, large: Prompter | None = None, settings: Settings | None = None, small_window: int = WINDOW
) -> Intake:
    catalogue = Catalogue([info("small", small_window), info("large", WINDOW)])
    return Intake(settings or Settings(), catalogue, {"small": small, "large": large or small}, b"key")


def run_of(reader: Intake, client: EngineClient, job: Job) -> Run:
    """The job on the engine, without a trained router."""
    load = Load(reader.catalogue.models, overload_wait_s=2.0)
    offers = Offers(reader.catalogue, reader.settings.prices, load)
    router = Router(client, None, RoutingSettings(), np.random.default_rng(0), offers)
    return Run(client, router, reader.catalogue, job, reader.settings)


def read(reader: Intake, prediction: object, **fields: Any) -> Job:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "prediction": prediction, **fields}
    return asyncio.run(reader.read(json.dumps(body).encode(), Principal(None, "anonymous"), Arrival()))


def content(text: Any) -> dict[str, Any]:
    return {"type": "content", "content": text}


@pytest.mark.parametrize(
    "given", [TEXT, [{"type": "text", "text": TEXT}], [{"type": "text", "text": part} for part in (TEXT[:9], TEXT[9:])]]
)
def test_a_text_and_its_parts_are_the_same_prediction(prompter: Prompter, given: Any) -> None:
    found = read(intake(prompter), content(given)).predictions
    assert set(found) == {"small", "large"}
    assert prompter.tokenizer.decode(found["small"]) == TEXT
    assert found["small"] == found["large"] == prompter.tokenizer.encode(TEXT)


def test_each_model_gets_the_tokens_of_its_own_vocabulary(prompter: Prompter, other: Prompter) -> None:
    found = read(intake(prompter, other), content(TEXT)).predictions
    assert found["small"] != found["large"]
    assert prompter.tokenizer.decode(found["small"]) == other.tokenizer.decode(found["large"]) == TEXT
    assert set(read(intake(prompter, other), content(TEXT), model="large").predictions) == {"large"}


def test_what_a_client_predicts_never_becomes_a_control_token(prompter: Prompter) -> None:
    (tokens,) = read(intake(prompter), content("<|im_end|>"), model="small").predictions.values()
    end = prompter.tokenizer.eos_token_id
    assert end is not None
    assert end in prompter.tokenizer.encode("<|im_end|>")
    assert end not in tokens
    assert prompter.tokenizer.decode(tokens) == "<|im_end|>"


@pytest.mark.parametrize("given", [None, content(""), content([])])
def test_an_absent_or_empty_prediction_predicts_nothing(prompter: Prompter, given: object) -> None:
    assert read(intake(prompter), given).predictions == {}


@pytest.mark.parametrize(
    ("given", "param", "message"),
    [
        ({"type": "tokens", "content": TEXT}, "prediction.type", "use 'content'"),
        ({"content": TEXT}, "prediction", "missing required field 'type'"),
        ({"type": "content"}, "prediction", "missing required field 'content'"),
        (content(7), "prediction.content", "Expected 'str | array'"),
        (content([{"type": "text"}]), "prediction.content[0]", "has no text"),
        (content([{"type": "image_url", "text": "x"}]), "prediction.content[0]", "send text parts"),
        (TEXT, "prediction", "Expected 'object"),
        (content("".join(map(chr, range(0xE000, 0xF900)))), "prediction", "private-use"),
    ],
)
def test_what_is_no_prediction_is_refused_by_name(prompter: Prompter, given: object, param: str, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(intake(prompter), given)
    assert (caught.value.status, caught.value.detail.param) == (400, param)
    assert message in str(caught.value)


def test_a_prediction_may_fill_the_window_of_each_eligible_model_and_no_more(prompter: Prompter) -> None:
    def of_length(n: int) -> dict[str, Any]:
        text = prompter.tokenizer.decode(prompter.tokenizer.encode(TEXT)[:1]) * n
        assert len(prompter.tokenizer.encode_plain(text)) == n
        return content(text)

    assert len(read(intake(prompter), of_length(WINDOW)).predictions["large"]) == WINDOW
    with pytest.raises(ApiError, match=rf"'prediction' has {WINDOW + 1} tokens, the window of 'tiny-large' {WINDOW};"):
        read(intake(prompter), of_length(WINDOW + 1))
    job = read(intake(prompter, small_window=WINDOW - 1), of_length(WINDOW))
    assert (job.eligibility.eligible, job.eligibility.reasons) == (("large",), {"small": "unsupported_prediction"})
    # The small model is out of it, so that its window does not matter.
    assert read(intake(prompter, small_window=1), of_length(WINDOW)).predictions.keys() == {"large"}


@pytest.mark.parametrize(
    "environ", [{"POINTSMAN_SPECULATION_MODE": "off"}, {"POINTSMAN_SPECULATION_SOURCES": "ngram,forced"}]
)
def test_a_server_without_use_for_predictions_says_so(prompter: Prompter, environ: Mapping[str, str]) -> None:
    reader = intake(prompter, settings=load_settings(environ))
    job = read(reader, content(TEXT), unheard_of=1)
    assert job.reading.ignored == ("unheard_of", "prediction")
    assert job.predictions == {}
    assert read(reader, None).reading.ignored == ()
    with pytest.raises(ApiError, match="use 'content'"):
        read(reader, {"type": "tokens", "content": TEXT})
    strict = intake(prompter, settings=load_settings({**environ, "POINTSMAN_STRICT_PARAMS": "true"}))
    with pytest.raises(ApiError, match="does not draft from predictions") as caught:
        read(strict, content(TEXT))
    assert caught.value.detail.param == "prediction"


def test_a_server_that_uses_predictions_ignores_none(prompter: Prompter) -> None:
    strict = intake(prompter, settings=load_settings({"POINTSMAN_STRICT_PARAMS": "true"}))
    assert read(strict, content(TEXT)).reading.ignored == ()


@pytest.mark.parametrize("model", ["small", "large"])
async def test_every_choice_is_submitted_with_the_prediction(prompter: Prompter, other: Prompter, model: str) -> None:
    reader = intake(prompter, other)
    body = {"messages": [{"role": "user", "content": "hi"}], "model": model, "n": 3, "prediction": content(TEXT)}
    job = await reader.read(msgspec.json.encode(body), Principal(None, "anonymous"), Arrival())
    transport, client = await started()
    run = run_of(reader, client, job)
    await run.start()
    await settle()
    expected: Tokenizer = {"small": prompter, "large": other}[model].tokenizer
    assert [submit.prediction for submit in transport.submits()] == [expected.encode(TEXT)] * 3
    transport.answer(*(finished(submit.id) for submit in transport.submits()))
    assert [piece.index async for piece in run.attempt.generation.pieces()] == [0, 1, 2]
    run.close()
    await client.close()


async def test_no_prediction_is_none_for_the_engine(prompter: Prompter) -> None:
    reader = intake(prompter)
    body = {"messages": [{"role": "user", "content": "hi"}], "model": "small"}
    job = await reader.read(msgspec.json.encode(body), Principal(None, "anonymous"), Arrival())
    transport, client = await started()
    run = run_of(reader, client, job)
    await run.start()
    await settle()
    (submit,) = transport.submits()
    assert submit.prediction == []
    run.close()
    await client.close()
