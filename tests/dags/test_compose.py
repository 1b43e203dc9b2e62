"""docker-compose.yml fits the code: services, commands, paths, variables; and it is closed by default.

No container engine runs here, so the file is read and held against Airflow's own command line and configuration,
the settings, and the repository.
"""

import re
import shlex
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from cleanbill.settings import REPOSITORY, Settings

AIRFLOW_SERVICES = {"init", "api-server", "scheduler", "dag-processor", "triggerer"}
SERVICES = AIRFLOW_SERVICES | {"postgres"}
SECRETS = {
    "POSTGRES_PASSWORD",
    "AIRFLOW_FERNET_KEY",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_SECRET_KEY",
    "CLEANBILL_PSEUDONYM_KEY",
}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(:[-?][^}]*)?\}")


@pytest.fixture(scope="module")
def text() -> str:
    return (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services(text: str) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(text)["services"]


def airflow_commands(services: dict[str, dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return (service, arguments after `airflow`) of every airflow command line, health checks included."""
    found = []
    for name in sorted(AIRFLOW_SERVICES):
        words = shlex.split(services[name]["command"])
        script = words[2] if words[:2] == ["bash", "-ec"] else services[name]["command"]
        lines = [shlex.split(part) for part in script.split("&&")]
        check = services[name].get("healthcheck", {}).get("test", [])
        lines.append(check[1:])
        found += [(name, line[1:]) for line in lines if line and line[0] == "airflow"]
    return found


def test_the_services_are_these(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == SERVICES


def test_every_airflow_command_is_one(services: dict[str, dict[str, Any]]) -> None:
    from airflow.cli.cli_parser import get_parser

    commands = airflow_commands(services)
    assert {name for name, _ in commands} == AIRFLOW_SERVICES
    parser = get_parser()
    for _, arguments in commands:
        parser.parse_args(arguments)  # SystemExit if Airflow does not know it
    started = {" ".join(arguments[:2]) for name, arguments in commands}
    assert {"db migrate", "pools set"} <= started


def test_the_pool_is_the_one_the_tasks_wait_for(services: dict[str, dict[str, Any]]) -> None:
    from cleanbill.dag_defaults import POOL

    (arguments,) = [arguments for _, arguments in airflow_commands(services) if arguments[:2] == ["pools", "set"]]
    assert arguments[2:4] == [POOL, "1"]


def test_every_airflow_variable_is_an_option_of_airflow(services: dict[str, dict[str, Any]]) -> None:
    from airflow.configuration import conf

    known = {
        f"AIRFLOW__{section.upper()}__{option.upper()}"
        for section, content in conf.configuration_description.items()
        for option in content["options"]
    }
    for name in AIRFLOW_SERVICES:
        used = {variable for variable in services[name]["environment"] if variable.startswith("AIRFLOW__")}
        assert used <= known, used - known
        assert used


def test_every_cleanbill_variable_is_a_setting(services: dict[str, dict[str, Any]]) -> None:
    known = {f"CLEANBILL_{field.upper()}" for field in Settings.model_fields}
    for name in AIRFLOW_SERVICES:
        used = {variable for variable in services[name]["environment"] if variable.startswith("CLEANBILL_")}
        assert used <= known, used - known


def test_no_secret_has_a_default_and_env_example_names_every_variable(text: str) -> None:
    used = dict(VARIABLE.findall(text))
    assert set(used) >= SECRETS
    for name, default in used.items():
        if name not in {"CLEANBILL_THREADS", "CLEANBILL_MEMORY_LIMIT"}:
            assert default.startswith(":?"), name
    example = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"^#? ?([A-Z_]+)=", example, re.MULTILINE)) == set(used)
    for name in SECRETS:
        assert re.search(rf"^{name}=$", example, re.MULTILINE), name


def test_the_real_env_file_cannot_be_committed() -> None:
    assert ".env" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_only_the_scheduler_has_data_and_key(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        holds_data = any(volume.startswith("data:") for volume in service.get("volumes", []))
        holds_key = "CLEANBILL_PSEUDONYM_KEY" in service["environment"]
        assert (holds_data, holds_key) == ((True, True) if name == "scheduler" else (False, False)), name


def test_the_data_root_is_where_the_volume_is(services: dict[str, dict[str, Any]]) -> None:
    scheduler = services["scheduler"]
    assert f"data:{scheduler['environment']['CLEANBILL_HOME']}" in scheduler["volumes"]
    for name in AIRFLOW_SERVICES:
        logs = services[name]["environment"]["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]
        assert f"airflow-logs:{logs}" in services[name]["volumes"]
    users = PurePosixPath(
        services["api-server"]["environment"]["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    ).parent
    assert f"airflow-users:{users}" in services["api-server"]["volumes"]


def test_paths_in_the_image_exist_in_the_repository(services: dict[str, dict[str, Any]]) -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    copied = {
        words[1]: words[2] for words in (line.split() for line in dockerfile.splitlines()) if words[:1] == ["COPY"]
    }
    for source in copied:
        assert (REPOSITORY / source).exists(), source
    environment = services["scheduler"]["environment"]
    root = PurePosixPath(environment["CLEANBILL_PROJECT_ROOT"])
    assert f"WORKDIR {root}" in dockerfile
    assert PurePosixPath(environment["AIRFLOW__CORE__DAGS_FOLDER"]) == root / "dags"
    for folder in ("dags", "dbt_project", "expectations"):
        assert copied[folder] == f"./{folder}"
    for folder in (
        environment["CLEANBILL_HOME"],
        environment["AIRFLOW_HOME"],
        "/var/log/airflow",
        "/var/lib/airflow-users",
    ):
        assert folder in dockerfile
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    assert {f"!{source}" for source in copied} == {line for line in ignored if line.startswith("!")}


def test_the_image_installs_the_lock_with_hashes_as_a_plain_user() -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes --no-deps -r requirements.lock" in dockerfile
    assert dockerfile.rstrip().endswith("USER 10001:10001")
    version = re.search(r"FROM python:3\.(\d+)", dockerfile)
    assert version and 11 <= int(version[1]) <= 13


def test_every_service_is_restricted(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        user, group = service["user"].split(":")
        assert int(user) > 0 and int(group) > 0, name
        assert service["logging"]["options"]["max-size"] and service["logging"]["options"]["max-file"], name
        assert "privileged" not in service and "network_mode" not in service, name


def test_only_the_web_interface_is_published_and_only_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api-server": ["127.0.0.1:8080:8080"]}


def test_the_database_is_on_the_inner_network_alone(text: str, services: dict[str, dict[str, Any]]) -> None:
    assert yaml.safe_load(text)["networks"]["inside"] == {"internal": True}
    assert {name for name, service in services.items() if service["networks"] != ["inside"]} == {"api-server"}


def test_nobody_is_admin_without_logging_in(services: dict[str, dict[str, Any]]) -> None:
    for name in AIRFLOW_SERVICES:
        environment = services[name]["environment"]
        assert environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
        assert environment["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
        assert environment["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] == "False", "a paused DAG never runs by itself"
        assert environment["AIRFLOW__API__EXPOSE_CONFIG"] == "False"
        assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://")


def test_every_long_running_service_has_a_health_check(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert ("healthcheck" in service) == (name != "init"), name
    assert services["init"]["restart"] == "no"
    for name in AIRFLOW_SERVICES - {"init"}:
        assert services[name]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({}, True),
        ({"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}, True),
        ({"metadatabase": {"status": "healthy"}, "scheduler": {"status": "unhealthy"}}, True),
        ({"metadatabase": {"status": "unhealthy"}, "scheduler": {"status": "healthy"}}, False),
    ],
)
def test_the_probe_looks_at_the_parts_that_matter(health: dict[str, Any], expected: bool) -> None:
    from cleanbill.probe import is_healthy

    assert is_healthy(health) is expected
