"""Settings: sources, precedence, refusals, and a page that documents every one."""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.speculation.config import SpeculationConfig
from engine.speculation.proposer import Source
from gateway.engine_host import pair_config, speculation_config
from gateway.secret import Secret
from gateway.settings import Settings, SettingsError, SourceName
from gateway.settings_loader import Setting, known_settings, load_settings
from gateway.settings_reference import render_reference

ROOT = Path(__file__).parents[2]
SETTINGS = list(known_settings())
SCALARS = [setting for setting in SETTINGS if setting.variable is not None]


def toml_file(folder: Path, text: str) -> Path:
    path = folder / "pointsman.toml"
    path.write_text(text)
    return path


def test_reference_page_is_up_to_date() -> None:
    assert (ROOT / "docs/settings.md").read_text() == render_reference(), (
        "run: python -m gateway.settings_reference > docs/settings.md"
    )


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_described(setting: Setting) -> None:
    page = (ROOT / "docs/settings.md").read_text()
    assert setting.description.endswith("."), "a description is a sentence"
    assert f"| `{setting.name}` |" in page
    assert setting.description in page
    assert setting.variable is None or f"`{setting.variable}`" in page


def test_defaults_are_valid_and_need_nothing() -> None:
    settings = load_settings({})
    assert settings.data_dir == Path("~/.pointsman").expanduser()
    assert settings.storage_url == f"sqlite+aiosqlite:///{settings.data_dir}/pointsman.sqlite3"
    assert settings.large_path.name == "large"
    assert settings.small_path.parent == settings.large_path.parent


def value_of(setting: Setting) -> str:
    """A valid value, as text, that is not the default."""
    if get_origin(setting.annotation) is Literal:
        return str(next(value for value in get_args(setting.annotation) if value != setting.default))
    if get_origin(setting.annotation) is tuple:
        return ",".join(reversed(setting.default))
    samples = {
        bool: str(not setting.default).lower(),
        str: "example.org",
        Secret: "pepper",
        Path: "/tmp/somewhere",  # noqa: S108
        float: str(setting.default / 2) if isinstance(setting.default, float) and setting.default else "0.5",
        int: str(setting.default // 2) if isinstance(setting.default, int) and setting.default else "7",
    }
    if setting.name == "database_url":
        return "postgresql://someone:word@host/name"
    if setting.name in ("limits.top_logprobs", "engine.kv_bytes", "engine.token_budget"):
        return {"limits.top_logprobs": "5", "engine.kv_bytes": "2097152"}.get(setting.name, "96")
    kinds = [kind for kind in get_args(setting.annotation) if kind is not type(None)] or [setting.annotation]
    return samples[kinds[0]]


def read(settings: object, name: str) -> object:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


@pytest.mark.parametrize("setting", SCALARS, ids=lambda setting: setting.name)
def test_every_variable_sets_what_it_names(setting: Setting) -> None:
    assert setting.variable is not None
    text = value_of(setting)
    changed = read(load_settings({setting.variable: text}), setting.name)
    assert changed != read(load_settings({}), setting.name)
    shown = changed.reveal() if isinstance(changed, Secret) else changed
    shown = ",".join(shown) if isinstance(shown, tuple) else shown
    assert str(shown).lower() in (text, str(float(text)) if text.replace(".", "").isdigit() else text)


ports = st.none() | st.integers(1, 65535)


@given(file=ports, variable=ports, option=ports)
def test_command_line_beats_environment_beats_file_beats_default(
    file: int | None, variable: int | None, option: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = None
    if file is not None:
        config = toml_file(tmp_path_factory.getbasetemp(), f"port = {file}")
    environ = {} if variable is None else {"POINTSMAN_PORT": str(variable)}
    expected = next(port for port in (option, variable, file, 8000) if port is not None)
    assert load_settings(environ, config, {"port": option}).port == expected


def test_file_named_by_the_environment_is_read_and_an_option_names_another(tmp_path: Path) -> None:
    named = toml_file(tmp_path, "port = 1\n[engine]\nthreads = 3\n")
    other = tmp_path / "other.toml"
    other.write_text("port = 2")
    environ = {"POINTSMAN_CONFIG": str(named)}
    assert (load_settings(environ).port, load_settings(environ).engine.threads) == (1, 3)
    assert load_settings(environ, other).port == 2


@given(setting=st.sampled_from(SETTINGS), position=st.integers(0, 40))
def test_a_misspelt_key_is_refused_with_the_right_name(
    setting: Setting, position: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    *section, key = setting.name.split(".")
    cut = position % len(key)
    misspelt = key[:cut] + key[cut + 1 :]
    assume(misspelt and misspelt not in {s.name.rsplit(".", 1)[-1] for s in SETTINGS})
    text = (f"[{section[0]}]\n" if section else "") + f"{misspelt} = 1\n"
    with pytest.raises(SettingsError, match=r"unknown setting .* (did you mean|docs/settings\.md)") as caught:
        load_settings({}, toml_file(tmp_path_factory.getbasetemp(), text))
    if len(key) > 5:
        assert f"did you mean {setting.name}?" in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "toml", "message"),
    [
        ({"POINTSMAN_PORT": "70000"}, "", r"port \(from POINTSMAN_PORT\): .*65535"),
        ({"POINTSMAN_PORT": "tcp://10.0.0.1:80"}, "", r"port \(from POINTSMAN_PORT\): expected `int`"),
        ({"POINTSMAN_PROT": "1"}, "", "did you mean POINTSMAN_PORT"),
        ({}, "port = 'x", "not valid TOML"),
        ({}, "port = true", r"port \(from .*pointsman\.toml\)"),
        ({}, "engine = 1", r"write \[engine\]"),
        ({}, "[engine]\nmode = 'thred'", "use process or thread"),
        ({}, "[limits]\nport = 1", r"limits\.port .* did you mean port"),
        ({}, "[routing]\nexploration = nan", r"routing\.exploration"),
        ({}, "[storage]\ntimeout_s = inf", r"storage\.timeout_s"),
        ({}, "[prices]\nversion = '1'\n[prices.models.small]\ninput = 1\n", "cached_input"),
        ({}, "[prices]\nversion = '1'\n[prices.models]\n", r"add \[prices\.models\.small\]"),
        ({}, "[engine]\ntoken_budget = 16\nmax_running = 17", "every running request needs a token"),
        ({"POINTSMAN_SPECULATION_SOURCES": "ngram,guess"}, "", "use forced or prediction or ngram"),
        ({}, "[speculation]\nsources = ['ngram', 'ngram']", "names ngram twice: name each source once"),
        ({}, "[speculation]\nsources = []", r'sources is empty: .*mode to "off"'),
        ({"POINTSMAN_SPECULATION_SOURCES": ","}, "", r'sources is empty: .*mode to "off"'),
        ({}, "[speculation]\nsources = ['guess']", r"value 'guess', use forced or prediction or ngram"),
        ({}, "[speculation]\nmax_draft = 64", r"speculation\.max_draft .*<= 63"),
        ({}, "[speculation]\nverification = 'typical'", "use coupled or ratio"),
        ({"POINTSMAN_DATABASE_URL": "mysql://a:geheim@b/c"}, "", "use postgresql"),
    ],
)
def test_a_wrong_value_is_refused_with_its_source(
    environ: dict[str, str], toml: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(environ, toml_file(tmp_path, toml))
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("given_value", ["'ngram'", "3", "true", "{ ngram = 1 }"])
def test_a_value_for_a_list_is_refused_with_a_list_that_can_be_written_instead(
    given_value: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"speculation\.sources .*expected `array`.*, of forced or") as caught:
        load_settings({}, toml_file(tmp_path, f"[speculation]\nsources = {given_value}"))
    (example,) = re.findall(r"sources = \[.*?\]", str(caught.value))
    assert load_settings({}, toml_file(tmp_path, f"[speculation]\n{example}")).speculation.sources


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        load_settings({}, tmp_path / "none.toml")


def test_variables_that_kubernetes_injects_are_left_alone() -> None:
    environ = {"POINTSMAN_SERVICE_HOST": "10.0.0.1", "POINTSMAN_PORT_8000_TCP_PROTO": "tcp", "POINTSMAN_PORT": ""}
    assert load_settings(environ) == load_settings({})


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://u:p@h/d?ssl=require", "postgresql+asyncpg://u:p@h/d?ssl=require"),
        ("sqlite:////data/x.db", "sqlite+aiosqlite:////data/x.db"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
    ],
)
def test_database_urls_get_an_asynchronous_driver(given_url: str, expected: str) -> None:
    assert load_settings({"POINTSMAN_DATABASE_URL": given_url}).storage_url == expected


def test_secrets_are_not_shown() -> None:
    settings = load_settings(
        {"POINTSMAN_DATABASE_URL": "postgresql://u:geheim@h/d", "POINTSMAN_ACCOUNTS_KEY_PEPPER": "geheim"}
    )
    assert "geheim" not in repr(settings)
    assert "geheim" not in str(settings.accounts.key_pepper)


def test_a_pair_of_ones_own_has_no_bundled_router() -> None:
    assert Settings().router_path is not None
    assert Settings(small=Path("/models/a")).router_path is None
    assert Settings(small=Path("/models/a"), router=Path("/r")).router_path == Path("/r")


def test_the_variable_of_tests_and_benchmarks_is_no_misspelt_setting() -> None:
    assert load_settings({"POINTSMAN_DATA": "/somewhere"}) == load_settings({})


def test_speculation_is_configured_as_it_was_set() -> None:
    assert set(get_args(SourceName)) == set(Source) - {Source.HEADS}
    assert speculation_config(Settings().speculation) == SpeculationConfig(drafters={"large": "small"})
    assert Settings().uses_predictions
    environ = {
        "POINTSMAN_SPECULATION_SOURCES": " ngram, forced ",
        "POINTSMAN_SPECULATION_MAX_DRAFT": "5",
        "POINTSMAN_SPECULATION_WIDTH": "1",
        "POINTSMAN_SPECULATION_VERIFICATION": "ratio",
    }
    chosen = load_settings(environ)
    assert pair_config(chosen).speculation == SpeculationConfig(
        sources=(Source.NGRAM, Source.FORCED), max_draft=5, width=1, verification="ratio"
    )
    assert not chosen.uses_predictions
    off = load_settings({**environ, "POINTSMAN_SPECULATION_MODE": "off"})
    assert pair_config(off).speculation.sources == ()
    assert pair_config(off).speculation.drafters == {}


def test_sources_may_be_empty_where_nothing_is_drafted(tmp_path: Path) -> None:
    settings = load_settings({}, toml_file(tmp_path, "[speculation]\nmode = 'off'\nsources = []"))
    assert settings.speculation.sources == pair_config(settings).speculation.sources == ()
    assert not settings.uses_predictions
