"""Fills Settings: defaults, under one TOML file, under POINTSMAN_* variables, under the command line."""

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from gateway.secret import Secret
from gateway.settings import Settings, SettingsError

PREFIX = "POINTSMAN_"
CONFIG_VARIABLE = "POINTSMAN_CONFIG"
_NOT_SETTINGS = (CONFIG_VARIABLE, "POINTSMAN_TEST_")
_EVALUATION_DATA = "POINTSMAN_DATA"  # where tests and benchmarks find theirs; `make` sets it


class Setting(msgspec.Struct, frozen=True):
    """One setting as a person sees it. name: dotted; variable: None where only the file can set it (tables)."""

    name: str
    variable: str | None
    annotation: Any
    description: str
    section: str
    default: Any


def known_settings() -> Iterator[Setting]:
    """Every setting, in the order of the structures."""
    yield from _fields(Settings, section="")


def load_settings(
    environ: Mapping[str, str], config: Path | None = None, overrides: Mapping[str, object] | None = None
) -> Settings:
    """The settings in force.

    environ: usually os.environ; config: the TOML file, else the one that POINTSMAN_CONFIG names, else none; overrides:
    values by dotted name from the command line, None meaning not given. Raises SettingsError with what to change.
    """
    if config is None and environ.get(CONFIG_VARIABLE):
        config = Path(environ[CONFIG_VARIABLE])
    settings = {setting.name: setting for setting in known_settings()}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if config is not None:
        _merge(values, _read_toml(config))
        _refuse_unknown(values, settings, config)
    variables = {setting.variable: setting for setting in settings.values() if setting.variable}
    _refuse_misspelt(environ, variables)
    for variable, setting in variables.items():
        if environ.get(variable, "") != "":
            _put(values, setting.name, _from_text(setting, environ[variable]))
            sources[setting.name] = variable
    for name, value in (overrides or {}).items():
        if value is not None:
            _put(values, name, value)
            sources[name] = "--" + name.replace("_", "-").replace(".", "-")
    try:
        loaded = msgspec.convert(values, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), settings, sources, config)) from None
    return _checked(loaded, sources)


def _fields(struct: type[msgspec.Struct], section: str) -> Iterator[Setting]:
    hints, plain = get_type_hints(struct, include_extras=True), get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        annotation, inner = hints[field.name], plain[field.name]
        name = f"{section}.{field.name}" if section else field.name
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if default is None and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and isinstance(default, msgspec.Struct):
            if get_origin(annotation) is not Annotated:  # a section, described by its docstring
                yield from _fields(inner, name)
                continue
            yield Setting(name, None, inner, _description(annotation), section, default)
        else:
            variable = PREFIX + name.replace(".", "_").upper()
            yield Setting(name, variable, inner, _description(annotation), section, default)


def _description(annotation: Any) -> str:
    metas = [meta for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    return next((meta.description for meta in metas if meta.description), "")


def _read_toml(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {config}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {config} is not valid TOML: {error}") from None


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        into[key] = dict(value) if isinstance(value, dict) else value


def _from_text(setting: Setting, text: str) -> object:
    """A variable's value: a list is written with commas."""
    if get_origin(setting.annotation) is not tuple:
        return text
    return [part for entry in text.split(",") if (part := entry.strip())]


def _put(values: dict[str, Any], name: str, value: object) -> None:
    *sections, key = name.split(".")
    for section in sections:
        nested = values.setdefault(section, {})
        values = nested if isinstance(nested, dict) else {}
    values[key] = value


def _refuse_unknown(values: Mapping[str, Any], settings: Mapping[str, Setting], config: Path) -> None:
    sections = {setting.section for setting in settings.values() if setting.section}
    for key, value in values.items():
        if key in sections and isinstance(value, dict):
            for inner in value:
                if f"{key}.{inner}" not in settings:
                    raise SettingsError(_unknown(f"{key}.{inner}", settings, config))
        elif key in sections:
            raise SettingsError(f"{key} in {config} is a section: write [{key}] and its settings below")
        elif key not in settings:
            raise SettingsError(_unknown(key, [*settings, *sections], config))


def _unknown(name: str, known: Mapping[str, Setting] | list[str], config: Path) -> str:
    names = list(known)
    leaf = name.rsplit(".", 1)[-1]
    by_leaf = [full for full in names if full.rsplit(".", 1)[-1] == leaf]
    close = by_leaf or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "docs/settings.md lists all."
    return f"unknown setting {name} in {config}: {hint}"


def _refuse_misspelt(environ: Mapping[str, str], variables: Mapping[str, Setting]) -> None:
    """Refuse near misses. Other POINTSMAN_* variables pass: Kubernetes injects some for a service of that name."""
    for variable in environ:
        if not variable.startswith(PREFIX) or variable in variables or variable.startswith(_NOT_SETTINGS):
            continue
        if variable == _EVALUATION_DATA:
            continue
        if close := difflib.get_close_matches(variable, list(variables), n=1, cutoff=0.85):
            raise SettingsError(f"unknown variable {variable}: did you mean {close[0]}?")


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str | Path):
        if not str(value):
            raise ValueError("expected a path, got an empty string")
        return Path(value)
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError(f"expected a string, got {type(value).__name__}")


def _explain(message: str, settings: Mapping[str, Setting], sources: Mapping[str, str], config: Path | None) -> str:
    what, _, path = message.partition(" - at `$")
    name = re.sub(r"\[(?:\.\.\.|\d+)\]", "", path.rstrip("`")).lstrip(".")
    source = sources.get(name, str(config) if config else "the settings")
    if name in settings and (choices := _choices(settings[name].annotation)):
        is_list = get_origin(settings[name].annotation) is tuple
        if is_list and not path.rstrip("`").endswith("]"):  # the list itself is wrong, not one of its entries
            example = ", ".join(f'"{choice}"' for choice in choices[:2])
            what += f": write a list, such as {name.rsplit('.', 1)[-1]} = [{example}], of"
        else:
            what += ", use"
        what += " " + " or ".join(map(str, choices))
    return f"setting {name or '(top level)'} (from {source}): {what[:1].lower()}{what[1:]}. See docs/settings.md."


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values that a setting may have, or the entries that its list may; empty where they are not listed."""
    if get_origin(annotation) is tuple:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _checked(settings: Settings, sources: Mapping[str, str]) -> Settings:
    """Expands ~, and checks what spans more than one value."""
    url = settings.database_url.reveal() if settings.database_url else None
    schemes = ("postgresql://", "postgres://", "postgresql+asyncpg://", "sqlite://", "sqlite+aiosqlite://")
    if url is not None and not url.startswith(schemes):
        source = sources.get("database_url", "database_url")
        raise SettingsError(f"{source} starts with {url.split(':', 1)[0]!r}: use postgresql://… or sqlite:///…")
    for model in ("small", "large"):
        if model not in settings.prices.models:
            raise SettingsError(f"prices has no entry for {model}: add [prices.models.{model}] to the settings file")
    for setting in known_settings():
        value: Any = settings
        for part in setting.name.split("."):
            value = getattr(value, part)
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(f"{setting.name} is {value}: use a finite number")
    if not settings.prices.version:
        raise SettingsError("prices.version is empty: name the table, for example by its date")
    budget, running = settings.engine.token_budget, settings.engine.max_running
    if budget is not None and running is not None and budget < running:
        raise SettingsError(
            f"engine.token_budget is {budget}, below engine.max_running {running}: "
            "every running request needs a token in a step"
        )
    drafting = settings.speculation.sources
    if twice := sorted({source for source in drafting if drafting.count(source) > 1}):
        raise SettingsError(f"speculation.sources names {', '.join(twice)} twice: name each source once")
    if not drafting and settings.speculation.mode != "off":
        raise SettingsError('speculation.sources is empty: name a source, or set speculation.mode to "off"')
    paths = {
        name: path.expanduser()
        for name in ("data_dir", "small", "large", "router")
        if (path := getattr(settings, name)) is not None
    }
    if settings.routing.embedding_model is not None:
        encoder = settings.routing.embedding_model.expanduser()
        settings = msgspec.structs.replace(
            settings, routing=msgspec.structs.replace(settings.routing, embedding_model=encoder)
        )
    return msgspec.structs.replace(settings, **paths)
