"""What a request asks of the router: its `x-router-*` headers and the body's `router` object, one and the same."""

from collections.abc import Iterable, Mapping

import msgspec

from gateway.openai.errors import ApiError, bad_request
from gateway.routing.ask import CASCADES, NOT_ASKED, RoutingAsk
from gateway.routing.catalogue import Wanted

PREFIX = "x-router-"
_RAW_PREFIX = PREFIX.encode()
CONFLICT = "router_conflict"

MEMBERS: tuple[str, ...] = RoutingAsk.__struct_fields__
"""The names that the `router` object may have."""

HEADERS: Mapping[str, str] = {PREFIX + name.replace("_", "-"): name for name in MEMBERS}
"""Request headers, and the member that each sets."""

_YES, _NO = ("1", "true", "on", "yes"), ("0", "false", "off", "no")
_NUMBERS = ("quality", "cost", "max_cost_usd", "max_ttft_ms")
_SWITCHES = ("explain", "explore")


def routing_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of the family, names in lower case, from those of an ASGI scope; one that is sent twice is joined.

    A value is UTF-8, as the body is, where its bytes can be that; else Latin-1, which any bytes can be.
    """
    found: dict[str, str] = {}
    for name, value in raw:
        key = name.lower()
        if key.startswith(_RAW_PREFIX):
            header, text = key.decode("latin-1"), _text(value)
            found[header] = f"{found[header]}, {text}" if header in found else text
    return found


def read_ask(headers: Mapping[str, str], body: RoutingAsk | None) -> RoutingAsk:
    """What headers (see `routing_headers`) and body ask together.

    Raises ApiError 400 for a header of the family that does not exist, for a value out of its range, and for one that
    differs from the body's.
    """
    if not headers:
        return body or NOT_ASKED
    values = {HEADERS[name]: _value(name, text.strip()) for name, text in headers.items() if _is_known(name)}
    try:
        asked = msgspec.convert(values, RoutingAsk)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        name = next((header for header, member in HEADERS.items() if member == path.rstrip("`")), PREFIX)
        raise bad_request(f"Invalid header '{name}': {what.replace('`', chr(39))}.", name) from error
    if body is None:
        return asked
    for header in headers:
        member = HEADERS[header]
        other = getattr(body, member)
        if other is not None and other != getattr(asked, member):
            raise bad_request(
                f"The header '{header}' and 'router.{member}' in the body differ; send one of them.",
                f"router.{member}",
                CONFLICT,
            )
    said = {name: value for name in MEMBERS if (value := getattr(asked, name)) is not None}
    return msgspec.structs.replace(body, **said)


def check_ask(ask: RoutingAsk, wanted: Wanted, cascade: str) -> None:
    """Raise ApiError 400 for wishes that could only be ignored: of a request for one model by name, or for a cascade
    that this server does not run. cascade: the server's own setting.
    """
    if ask.cascade is not None and CASCADES.index(ask.cascade) > CASCADES.index(cascade):
        raise bad_request(
            f"'router.cascade' is '{ask.cascade}'; this server goes no further than '{cascade}'.", "router.cascade"
        )
    if ask.min_model == "large" and ask.cost is not None and ask.cost < 1:
        raise ApiError(
            400,
            CONFLICT,
            f"'router.min_model' leaves only the large model, so 'router.cost' cannot be {ask.cost:g}; "
            "leave one of them out.",
            param="router.cost",
        )
    if wanted.model is None:
        return
    alias = wanted.model.alias
    names = [name for name in _NUMBERS if getattr(ask, name) is not None]
    if ask.min_model == "large" and alias == "small":
        names.append("min_model")
    if ask.cascade not in (None, "off"):
        names.append("cascade")
    if names:
        raise ApiError(
            400,
            CONFLICT,
            f"'router.{names[0]}' asks the router to choose, but 'model' is '{wanted.name[:128]}'; "
            "use auto, auto-quality or auto-cost, or leave it out.",
            param=f"router.{names[0]}",
        )


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _is_known(header: str) -> bool:
    if header in HEADERS:
        return True
    raise bad_request(f"There is no header '{header[:64]}'; use {', '.join(HEADERS)}.", header[:64])


def _value(header: str, text: str) -> float | bool | str:
    """A header's text as the body would have it; its range is left to the check of the structure."""
    member = HEADERS[header]
    if member in _SWITCHES:
        if text.lower() in _YES or text.lower() in _NO:
            return text.lower() in _YES
        raise bad_request(f"Invalid header '{header}': '{text[:32]}'; use on or off.", header)
    if member not in _NUMBERS:
        return text
    try:
        return msgspec.json.decode(text, type=float)
    except msgspec.DecodeError:
        raise bad_request(f"Invalid header '{header}': '{text[:32]}' is no number.", header) from None
