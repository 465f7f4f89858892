"""What may be named, and the endpoints that operators look at."""

import msgspec
import openai
import pytest

from gateway.prices import bundled_prices
from tests.gateway.server import GatewayServer


def test_models_are_listed_with_window_price_and_alias(server: GatewayServer) -> None:
    with server.client() as client:
        models = {model.id: model.to_dict() for model in client.models.list()}
    assert list(models) == ["auto", "auto-quality", "auto-cost", "tiny-small", "tiny-large"]
    assert models["tiny-small"]["aliases"] == ["small"]
    assert models["tiny-small"]["max_model_len"] == 4096
    assert models["tiny-large"]["pricing"] == msgspec.to_builtins(bundled_prices().models["large"])
    assert all(model["object"] == "model" for model in models.values())


@pytest.mark.parametrize("name", ["small", "tiny-small", "auto"])
def test_one_model_answers_to_id_and_alias(server: GatewayServer, name: str) -> None:
    with server.client() as client:
        assert client.models.retrieve(name).id == ("auto" if name == "auto" else "tiny-small")
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("unknown")


def test_health_and_version_answer_without_a_key(routed_server: GatewayServer) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/version"):
        assert routed_server.fetch(path, headers={"authorization": ""}).status == 200
    health = routed_server.fetch("/health").json
    assert (health["status"], health["models"]) == ("ok", ["tiny-small", "tiny-large"])
    assert (health["engine"]["restarts"], health["engine"]["last_death"]) == (0, None)
    assert routed_server.fetch("/version").json["version"]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer sk-wrong", "Basic abc", "Bearer sk-" + "A" * 43])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/small", "/metrics", "/v1/chat/completions"])
def test_everything_else_asks_for_one(routed_server: GatewayServer, path: str, authorization: str) -> None:
    body = b"{}" if path.endswith("completions") else None
    reply = routed_server.fetch(path, body, {"authorization": authorization})
    assert reply.status == 401
    assert reply.json["error"]["code"] == "invalid_api_key"


def test_the_client_raises_an_authentication_error(routed_server: GatewayServer) -> None:
    with routed_server.client(api_key="sk-wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_metrics_count_what_was_answered(server: GatewayServer) -> None:
    def generated() -> float:
        return server.engine("small").get("generation_tokens", 0.0)

    before = generated()
    assert server.chat(max_tokens=6, ignore_eos=True).status == 200
    assert generated() == before + 6
