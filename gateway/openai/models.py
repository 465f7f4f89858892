"""`GET /v1/models` and `/v1/models/{id}`: what may be named in a request, with window, price and aliases."""

from typing import Any

import msgspec
from litestar import Request, get
from msgspec import UNSET, UnsetType

from gateway.openai.errors import ApiError
from gateway.prices import ModelPrice
from gateway.routing.catalogue import Target
from gateway.services import Services

_TARGETS = {
    Target.AUTO: "The router chooses the model for each request.",
    Target.QUALITY: "The router chooses, and leans towards quality.",
    Target.COST: "The router chooses, and leans towards cost.",
}


class ModelOut(msgspec.Struct, kw_only=True):
    """One name. pricing: USD per million tokens; names under which the router chooses have no price of their own."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "pointsman"
    description: str | UnsetType = UNSET
    aliases: list[str] = []
    max_model_len: int
    n_parameters: int | UnsetType = UNSET
    pricing: ModelPrice | UnsetType = UNSET


class ModelList(msgspec.Struct):
    """All names."""

    data: list[ModelOut]
    object: str = "list"


@get("/v1/models", sync_to_thread=False)
def list_models(request: Request[Any, Any, Any]) -> ModelList:
    """Every model and routing target."""
    return ModelList(_models(request.app.state.services))


@get("/v1/models/{model_id:str}", sync_to_thread=False)
def get_model(request: Request[Any, Any, Any]) -> ModelOut:
    """One of them, by id or alias."""
    model_id = str(request.path_params["model_id"])
    for model in _models(request.app.state.services):
        if model_id == model.id or model_id in model.aliases:
            return model
    raise ApiError(
        404, "model_not_found", f"The model '{model_id[:128]}' does not exist; see /v1/models.", param="model"
    )


def _models(services: Services) -> list[ModelOut]:
    served, prices = services.catalogue.models, services.settings.prices
    window = max(model.info.max_model_len for model in served)
    targets = [ModelOut(id=target.value, description=text, max_model_len=window) for target, text in _TARGETS.items()]
    return targets + [
        ModelOut(
            id=model.id,
            aliases=[] if model.alias == model.id else [model.alias],
            max_model_len=model.info.max_model_len,
            n_parameters=model.info.n_parameters,
            pricing=prices.price(model.alias),
        )
        for model in served
    ]
