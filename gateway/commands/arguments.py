"""What subcommands share: options that are settings, and errors that a person can act on."""

import argparse
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.reports.period import parse_period
from gateway.settings import Settings
from gateway.settings_loader import load_settings

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_OPTIONS = ("host", "port", "data_dir", "small", "large")


class CommandError(Exception):
    """The command cannot do what was asked; one sentence that says what to change."""


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every command that reads settings."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="folder of database and spool (default ~/.pointsman)"
    )


def add_model_arguments(parser: argparse.ArgumentParser, *, hidden: bool = False) -> None:
    """Options that name the models. hidden: accepted, so that one set of options fits every command, but not used."""
    for name in ("small", "large"):
        text = argparse.SUPPRESS if hidden else f"checkpoint folder of the {name} model (default: the bundled one)"
        parser.add_argument(f"--{name}", type=Path, metavar="PATH", help=text)


def period(text: str) -> timedelta:
    """Type of an option that takes a period, such as 7d."""
    try:
        return parse_period(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def settings_of(parsed: argparse.Namespace) -> Settings:
    """The settings in force for a parsed command line. Raises SettingsError."""
    overrides = {name: value for name in _OPTIONS if (value := getattr(parsed, name, None)) is not None}
    return load_settings(os.environ, parsed.config, overrides)
