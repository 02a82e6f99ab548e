"""The files of docker-compose, checked without an engine."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

COMPOSE = yaml.safe_load(Path("docker-compose.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
DOCKERFILE = Path("infra/compose/Dockerfile").read_text("utf-8")
SECRET_WORDS = ("password", "secret", "fernet", "key")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_bounded_and_unprivileged(name):
    service = SERVICES[name]
    assert set(service["deploy"]["resources"]["limits"]) == {"memory", "pids"}
    assert service["logging"]["options"]["max-size"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["restart"] == ("no" if name in ("prepare", "migrate") else "unless-stopped")
    assert "healthcheck" in service or service["restart"] == "no"
    assert not {"privileged", "pid", "ipc"} & service.keys()
    # `prepare` changes owners and then becomes the user; it has no network.
    rights = ["CHOWN", "DAC_READ_SEARCH", "SETGID", "SETUID"] if name == "prepare" else []
    assert service.get("cap_add", []) == rights
    assert (service.get("user") == "root") == (name == "prepare") == (service.get("network_mode") == "none")


def test_only_the_ui_has_a_port_and_on_loopback():
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "api-server": ["127.0.0.1:${NIGHTJAR_PORT:-8080}:8080"]
    }
    assert [name for name, network in COMPOSE["networks"].items() if not (network or {}).get("internal")] == ["front"]


def test_only_the_scheduler_and_the_triggerer_reach_the_embedded_emr_and_it_sees_no_secret():
    on_cluster = {name for name, service in SERVICES.items() if "cluster" in service.get("networks", ())}
    assert on_cluster == {"emr", "scheduler", "triggerer"}
    places = [volume for volume in SERVICES["emr"]["volumes"] if isinstance(volume, str)]
    assert places == ["emr:/work"]


def test_the_files_hold_no_secret():
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            secret = any(word in key.lower() for word in SECRET_WORDS)
            assert not secret or key.endswith("_FILE"), f"{name}: {key}={value}"


def test_postgresql_is_the_only_foreign_image():
    images = {service["image"] for service in SERVICES.values()}
    assert images == {"${COMPOSE_PROJECT_NAME}-airflow", "postgres:16"}
    assert SERVICES["postgres"]["user"] == "postgres"


def test_the_image_is_pinned_and_does_not_run_as_root():
    instructions = [line for line in DOCKERFILE.splitlines() if line and not line.startswith((" ", "#"))]
    assert instructions[-2] == "USER nightjar"
    assert {line.split()[1] for line in instructions if line.startswith("FROM")} == {"python:3.11-slim-bookworm"}
    assert DOCKERFILE.count("--require-hashes") == 3
    assert "syntax=" not in DOCKERFILE
    assert "<<" not in DOCKERFILE


def test_the_image_holds_the_code_and_nothing_else():
    lines = [line for line in Path(".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        *("dags", "infra", "jobs", "plugins", "requirements"),
        *("pyproject.toml", "README.md"),  # they make the folder a package
    }


@pytest.mark.parametrize("word", ["up", "down", "logs"])
def test_without_docker_one_line_says_what_to_install(word, tmp_path):
    for tool in ("dirname", "sh"):
        found = subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
        (tmp_path / tool).symlink_to(found)
    command = ["/bin/sh", "infra/compose/compose.sh", word]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)}, check=False)
    assert done.returncode == 2
    assert (
        done.stderr
        == "compose: docker compose is missing: install Docker with its compose plugin, version 2.20 or later\n"
    )


DOCKER = """#!/bin/sh
echo "ids $NIGHTJAR_UID:$NIGHTJAR_GID port ${NIGHTJAR_PORT:-8080} $*" >>asked
case "$*" in
    *" port "*) echo 127.0.0.1:1234 ;;
    *" exec "*) echo word ;;
    *" up "*) [ "$NIGHTJAR_PORT" = 0 ] || exit "${UP_STATUS:-0}" ;;
    *" ps "*--quiet) echo 1 ;;
    inspect*) echo "${START_ERROR:-}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """The script in a folder of its own, with a `docker` that answers and writes its arguments to a file."""
    root = tmp_path / "a folder"
    (root / "infra" / "compose").mkdir(parents=True)
    shutil.copy("infra/compose/compose.sh", root / "infra" / "compose")
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return root


def compose(root, word, **environment):
    env = {"PATH": f"{root.parent / 'bin'}:{os.environ['PATH']}", **environment}
    script = root / "infra" / "compose" / "compose.sh"
    return subprocess.run([script, word], capture_output=True, text=True, env=env, check=False)


def test_up_passes_the_users_ids_on_and_says_what_to_try_next(checkout):
    (checkout / ".env").write_text("NIGHTJAR_LAKE_DIR=the lake")
    uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (50000, 50000)
    for _ in range(2):
        done = compose(checkout, "up")
        assert done.returncode == 0, done.stderr
        assert "http://127.0.0.1:1234   login: admin   password: word" in done.stdout
    assert "the lake/corpora" in done.stdout.partition("\nNext\n")[2]
    assert (checkout / ".env").read_text() == "NIGHTJAR_LAKE_DIR=the lake"
    assert f"ids {uid}:{gid} port 8080 compose build" in (checkout / "asked").read_text()
    assert (checkout / "the lake").is_dir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_root_takes_the_ids_of_the_lakes_owner(checkout):
    (checkout / "lake").mkdir()
    os.chown(checkout / "lake", 1234, 567)
    assert compose(checkout, "up").returncode == 0
    assert "ids 1234:567 port 8080 compose build" in (checkout / "asked").read_text()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_root_takes_the_ids_of_the_checkouts_owner_for_a_lake_that_it_makes(checkout):
    os.chown(checkout, 1234, 567)
    assert compose(checkout, "up").returncode == 0
    assert "ids 1234:567 port 8080 compose build" in (checkout / "asked").read_text()


def test_down_says_what_is_kept_and_how_to_start_again(checkout):
    done = compose(checkout, "down")
    assert done.stdout.splitlines()[-1] == (
        "Stopped. Runs, passwords and ./lake are kept; make up starts everything again."
    )


def test_up_prints_the_logs_if_a_container_does_not_become_healthy(checkout):
    done = compose(checkout, "up", UP_STATUS="1", NIGHTJAR_UID="1000")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith("compose: not all containers became healthy within")
    assert "compose logs --no-color --tail 15" in (checkout / "asked").read_text()
    assert not (checkout / ".env").exists()


def test_up_takes_another_port_if_the_default_one_is_in_use(checkout):
    refused = "listen tcp4 127.0.0.1:8080: bind: address already in use"
    done = compose(checkout, "up", UP_STATUS="1", START_ERROR=refused)
    assert done.returncode == 0
    assert done.stderr == "compose: port 8080 is in use, so the UI gets another one\n"
    assert "port 0 compose up" in (checkout / "asked").read_text()


def test_up_names_a_port_of_the_users_choice_that_is_in_use(checkout):
    refused = "listen tcp4 127.0.0.1:8081: bind: address already in use"
    done = compose(checkout, "up", UP_STATUS="1", START_ERROR=refused, NIGHTJAR_UID="1000", NIGHTJAR_PORT="8081")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-3:] == [
        refused,
        "compose: port 8081 is in use: set another NIGHTJAR_PORT in .env",
        "compose: the other containers still run: make logs shows their logs, make down stops them",
    ]
