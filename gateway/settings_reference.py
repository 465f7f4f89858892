"""Writes docs/settings.md from the settings themselves: `python -m gateway.settings_reference > docs/settings.md`."""

import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from gateway.prices import PriceTable
from gateway.secret import Secret
from gateway.settings import Settings
from gateway.settings_loader import CONFIG_VARIABLE, Setting, known_settings

_INTRODUCTION = f"""# Settings

This page is written by `python -m gateway.settings_reference`; a test fails when it is out of date.

A value comes from the command line, else from its environment variable, else from the TOML file that `--config` or
`{CONFIG_VARIABLE}` names, else it is the default. Everything is checked at start: a value out of bounds, an unknown
key in the file and a misspelt variable end the start with a sentence that says what to change. An empty variable counts
as not set. A list is written with commas in a variable (`forced,ngram`), and as an array in the file.

Tracing is configured by OpenTelemetry's own variables: spans are exported by OTLP over HTTP when
`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, and nowhere otherwise.
"""


def render_reference() -> str:
    """The page, as Markdown."""
    parts = [_INTRODUCTION]
    by_section: dict[str, list[Setting]] = {}
    for setting in known_settings():
        by_section.setdefault(setting.section, []).append(setting)
    for section, settings in by_section.items():
        doc = (getattr(Settings(), section).__doc__ or "").strip() if section else "At the top of the file."
        parts.append(f"## {f'[{section}]' if section else 'General'}\n\n{doc}\n")
        rows = ["| setting | variable | type | default | meaning |", "|---|---|---|---|---|"]
        rows += [
            f"| `{s.name}` | {f'`{s.variable}`' if s.variable else 'file only'} | {_type(s.annotation)} "
            f"| {_default(s.default)} | {s.description} |"
            for s in settings
        ]
        parts.append("\n".join(rows) + "\n")
    parts.append(_price_example())
    return "\n".join(parts)


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {_type(get_args(annotation)[0])}"
    if get_origin(annotation) in (Union, types.UnionType):
        return " or ".join(_type(kind) for kind in get_args(annotation) if kind is not types.NoneType)
    names = {Path: "path", Secret: "secret", bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names.get(annotation, "table")


def _default(value: object) -> str:
    if value is None or value == Secret(""):
        return "–"
    if isinstance(value, PriceTable):
        return "see below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    return f"`{value}`"


def _price_example() -> str:
    prices: PriceTable = Settings().prices
    lines = ["## Prices", "", "The default table, notional prices for the bundled pair:", "", "```toml", "[prices]"]
    lines += [f'version = "{prices.version}"', ""]
    for name, price in prices.models.items():
        lines.append(f"[prices.models.{name}]")
        lines += [f"{field} = {value}" for field, value in msgspec.structs.asdict(price).items()]
        lines.append("")
    return "\n".join([*lines[:-1], "```", ""])


if __name__ == "__main__":
    sys.stdout.write(render_reference())
