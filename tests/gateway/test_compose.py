"""The compose file and the image keep their promises: least privilege, loopback, no default password, real settings."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gateway.settings import Settings
from gateway.settings_loader import known_settings, load_settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())
GPU: dict[str, Any] = YAML(typ="safe").load((ROOT / "compose.gpu.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLES = {setting.variable for setting in known_settings()}


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_the_files_fit_the_compose_specification(name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(ROOT / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gpu_is_added_without_taking_a_privilege_or_changing_a_setting() -> None:
    added = GPU["services"]
    assert set(added) == {"gateway"}
    gateway = added["gateway"]
    assert set(gateway) <= {"build", "image", "environment", "volumes", "deploy", "healthcheck"}
    assert not VARIABLES & set(gateway["environment"])
    [device] = gateway["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_triton_finds_a_compiler_and_a_folder_that_may_hold_programs() -> None:
    """A tmpfs of a container is mounted noexec, and the root is read-only: what Triton compiles goes to a volume that
    the image has made writable for its user."""
    gateway = GPU["services"]["gateway"]
    folder = gateway["environment"]["TRITON_CACHE_DIR"]
    assert [f"triton:{folder}"] == gateway["volumes"]
    assert "triton" in GPU["volumes"]
    assert re.search(rf"install --directory --owner 10001.*{folder}", DOCKERFILE)
    assert "gcc" in gateway["build"]["args"]["RUNTIME_PACKAGES"]
    assert "ARG RUNTIME_PACKAGES" in DOCKERFILE.split("FROM python")[2]


def test_the_services_are_those_that_are_needed() -> None:
    assert set(SERVICES) == {"gateway", "migrate", "postgres"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_runs_with_least_privilege(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])  # noqa: S108


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_database_is_not_published_at_all() -> None:
    assert "ports" not in SERVICES["postgres"]


def test_there_is_no_default_password() -> None:
    uses = re.findall(r"\$\{POSTGRES_PASSWORD([^}]*)\}", (ROOT / "compose.yaml").read_text())
    assert len(uses) >= 2
    assert all(use.startswith(":?") for use in uses)


def test_the_gateway_waits_for_a_healthy_database_and_its_migration() -> None:
    assert SERVICES["gateway"]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"].startswith("on-failure"), "a one-shot service must not run for ever"


@pytest.mark.parametrize("name", ["gateway", "postgres"])
def test_lasting_services_have_health_checks(name: str) -> None:
    test = SERVICES[name]["healthcheck"]["test"]
    assert test[0] == "CMD"
    if name == "gateway":
        compile(test[3], "healthcheck", "exec")


@pytest.mark.parametrize("name", ["gateway", "migrate"])
def test_the_environment_holds_only_settings_that_exist(name: str) -> None:
    ours = {key for key in SERVICES[name]["environment"] if key.startswith("POINTSMAN_")}
    assert ours <= VARIABLES
    in_image = set(re.findall(r"(POINTSMAN_[A-Z_]+)=", DOCKERFILE))
    assert in_image <= VARIABLES
    assert in_image


def test_the_environment_makes_valid_settings() -> None:
    filled = {
        key: re.sub(r"\$\{POSTGRES_PASSWORD[^}]*\}", "s3cret", re.sub(r"\$\{[A-Z_]+:-\}", "", value))
        for key, value in SERVICES["gateway"]["environment"].items()
    }
    settings = load_settings(filled)
    assert settings.storage_url == "postgresql+asyncpg://pointsman:s3cret@postgres:5432/pointsman"


def test_the_container_is_killed_only_after_the_grace() -> None:
    grace_s = float(SERVICES["gateway"]["environment"]["POINTSMAN_SHUTDOWN_GRACE_S"])
    assert int(SERVICES["gateway"]["stop_grace_period"].removesuffix("s")) > grace_s
    assert Settings().shutdown_grace_s == grace_s


def test_what_must_last_lies_on_volumes() -> None:
    mounts = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert {name for name, _ in mounts} == set(COMPOSE["volumes"])
    assert f"POINTSMAN_DATA_DIR={dict(mounts)['spool']}" in DOCKERFILE


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001"]
    assert SERVICES["gateway"]["user"] == users[0]
    assert DOCKERFILE.rindex("USER") < DOCKERFILE.rindex("ENTRYPOINT")
