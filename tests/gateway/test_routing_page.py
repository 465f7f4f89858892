"""The page about routing names what there is, in the words of the code."""

import re
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from msgspec import Meta

from gateway.openai.ledger import RESPONSE_HEADERS, router_headers
from gateway.openai.responses import RouterOut
from gateway.openai.routing_ask import HEADERS
from gateway.routing import decision
from gateway.routing.ask import RoutingAsk
from gateway.routing.catalogue import Target
from gateway.routing.eligibility import Ineligible
from gateway.settings_loader import known_settings
from gateway.telemetry import semconv
from router_model.decision import Reason

PAGE = (Path(__file__).parents[2] / "docs/routing.md").read_text()


def table(first: str) -> dict[str, list[str]]:
    """The rows of the table whose first heading that is: the first cell without its quotes, and the others."""
    _, _, after = PAGE.partition(f"\n| {first} |")
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", after.partition("\n\n")[0], re.MULTILINE)
    return {name: re.split(r" \| ", rest) for name, rest in rows}


def described(member: str) -> str:
    hint = get_type_hints(RoutingAsk, include_extras=True)[member]
    (text,) = (meta.description for meta in hint.__metadata__ if isinstance(meta, Meta))
    assert text is not None
    return text


def test_request_headers_and_members_are_those_that_are_read() -> None:
    rows = table("header | body")
    assert rows == {header: [f"`router.{member}`", described(member)] for header, member in HEADERS.items()}


def test_response_headers_are_those_that_are_sent() -> None:
    rows = table("header | meaning")
    assert rows == {name: [text] for name, text in RESPONSE_HEADERS.items()}
    fields = msgspec.structs.fields(RouterOut)
    values: dict[str, Any] = {
        field.name: 0.5 if "float" in str(field.type) else "x" for field in fields if field.name != "explain"
    }
    assert set(router_headers(RouterOut(**values))) == set(RESPONSE_HEADERS)


def test_every_reason_of_a_decision_is_explained() -> None:
    gateway = {value for name, value in vars(decision.Reason).items() if name.isupper()}
    reasons = set(table("reason | meaning"))
    assert reasons == gateway | {reason.value for reason in Reason}


def test_every_reason_for_leaving_a_model_out_is_explained() -> None:
    assert set(table("reason | the model is out because")) == {
        value for name, value in vars(Ineligible).items() if name.isupper()
    }


@pytest.mark.parametrize("target", Target)
def test_every_target_is_explained(target: Target) -> None:
    assert f"| `{target.value}` |" in PAGE


def test_settings_and_members_that_are_named_exist() -> None:
    assert set(re.findall(r"`(routing\.[a-z_]+)`", PAGE)) <= {setting.name for setting in known_settings()}
    members = set(re.findall(r"`router\.([a-z_]+)`", PAGE))
    assert members <= set(RoutingAsk.__struct_fields__) | set(RouterOut.__struct_fields__)


def test_every_metric_that_is_named_exists() -> None:
    declared = {value for name, value in vars(semconv).items() if name.startswith("METRIC_")}
    exposed = declared | {f"{name}_total" for name in declared}
    named = set(re.findall(r"pointsman_[a-z_]+", PAGE))
    assert len(named) > 10
    assert named <= exposed
