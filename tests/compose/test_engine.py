"""From nothing to a trained model by docker-compose, twice in a row: `make test-compose`."""

import json
import time
import urllib.error
import urllib.request

import pytest

from infra.airflow.standalone import call
from jobs.lake.uri import local_path
from tests.compose.stack import CONF, PARTS, Stack, running_stack, say

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module", params=["first", "again"])
def stack(request, tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("compose")) as running:
        yield running


@pytest.fixture(scope="module")
def finished(stack):
    """A run on the text that the form shows at first, which has ended well."""
    say(f"memory idle: {stack.memory()}")
    run = stack.trigger_with({"preset": "tiny", "spark.driver_memory": "1g"})
    stack.until_step(run, "train")
    say(f"memory in training: {stack.memory()}")
    assert stack.wait(run) == "success", stack.states(run)
    return run


def test_every_part_is_healthy(stack):
    states = {name: found["State"] for name, found in stack.containers().items()}
    assert {name for name, state in states.items() if state["Running"]} == set(PARTS)
    assert {states[name]["Health"]["Status"] for name in PARTS} == {"healthy"}
    assert {states[name]["ExitCode"] for name in ("prepare", "migrate")} == {0}


def test_nothing_runs_as_root(stack):
    for name, found in stack.containers().items():
        if not found["State"]["Running"]:
            assert found["Config"]["User"] not in ("", "0", "root") or name == "prepare"
            continue
        processes = stack.run("docker", "top", found["Id"], "-eo", "pid,uid,args").splitlines()[1:]
        assert processes
        assert not [line for line in processes if line.split()[1] == "0"], name
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["HostConfig"]["ReadonlyRootfs"]


def test_only_the_ui_is_reached_and_on_loopback_alone(stack):
    bound = [
        (name, port["HostIp"])
        for name, found in stack.containers().items()
        for ports in found["NetworkSettings"]["Ports"].values()
        for port in ports or ()
    ]
    assert bound == [("api-server", "127.0.0.1")]


def test_the_embedded_emr_is_seen_by_those_alone_who_need_it(stack):
    ask = ["python", "-I", "-S", "infra/compose/healthcheck.py", "emr:5555", "/moto-api/"]
    stack.compose("exec", "-T", "scheduler", *ask)
    for name in ("api-server", "dag-processor"):
        with pytest.raises(AssertionError, match="emr:5555"):
            stack.compose("exec", "-T", name, *ask)
    listening = stack.compose("exec", "-T", "emr", "cat", "/proc/net/tcp").splitlines()[1:]
    assert "0100007F:15B3" not in " ".join(listening)  # loopback, port 5555
    assert "00000000:15B3" not in " ".join(listening)


def test_steps_have_the_archive_of_sparks_classes(stack):
    ask = "from infra.emr.jvm import with_archive; print(with_archive(''))"
    assert "-XX:SharedArchiveFile=" in stack.compose("exec", "-T", "emr", "python", "-c", ask)


def test_secrets_are_random_and_shown_nowhere(stack):
    kept = stack.compose("exec", "-T", "api-server", "cat", "/airflow/container.json", "/airflow/secrets.json")
    values = [value for part in kept.replace("}{", "}\n{").splitlines() for value in json.loads(part).values()]
    values.append(stack.password)
    assert len(set(values)) == 5
    shown = stack.compose("config") + json.dumps(stack.containers()) + stack.compose("logs", "--no-color")
    assert not [value for value in values if value in shown]
    seen = stack.compose("exec", "-T", "emr", "sh", "-c", "env; ls -a /airflow /database")
    assert not [value for value in values if value in seen]
    assert "passwords.json" not in seen


def test_strangers_are_refused(stack):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        call(f"{stack.url}/api/v2/dags")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        call(f"{stack.url}/auth/token", {"username": "admin", "password": "admin"})


def test_a_run_succeeds_and_its_results_are_the_users(stack, finished):
    folder = local_path(finished.uri)
    stats = json.loads((folder / "stats" / "stats.json").read_text("utf-8"))
    say(f"validation loss {stats['valid_loss']:.3f}, unigram {stats['unigram_loss']:.3f}, seconds {stats['seconds']}")
    assert stats["valid_loss"] < stats["unigram_loss"]
    for name in ("model/model.safetensors", "model/tokenizer.json", "generate/generated.txt", "stats/spark.csv"):
        assert (folder / name).stat().st_size > 0
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in folder.rglob("*")}
    assert owners == {(stack.uid, stack.gid)}
    assert json.loads((folder / "config.json").read_text("utf-8"))["corpus"] == "file:///lake/corpora/shakespeare"
    assert (stack.lake_dir / "pipelines" / "default" / "champion.json").is_file()
    assert "train is complete and verified" in stack.log(finished, "train")


def test_a_lake_that_was_there_before_is_the_users(stack):
    places = [
        stack.lake_dir,
        stack.lake_dir / "corpora" / "shakespeare",
        stack.lake_dir / "runs" / "demo" / "config.json",
    ]
    assert {(place.stat().st_uid, place.stat().st_gid) for place in places} == {(stack.uid, stack.gid)}


def test_the_form_proposes_the_texts_of_the_lake(stack):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:  # the DAG is parsed every half a minute
        field = stack.ask("details")["params"]["corpus"]
        if CONF["corpus"] in field["schema"].get("examples", ()):
            break
        time.sleep(2)
    assert field["schema"]["examples"] == ["/lake/corpora/shakespeare", CONF["corpus"]]
    assert field["value"] == "/lake/corpora/shakespeare"


def test_the_folder_of_a_run_is_shown_to_its_users(stack, finished):
    links = stack.ask(f"dagRuns/{finished.run_id}/taskInstances/generate/links")["extra_links"]
    for name in ("Run folder", "Step logs", "Generated text"):
        request = urllib.request.Request(f"{stack.url}{links[name]}", headers={"Cookie": f"_token={stack.token}"})
        with urllib.request.urlopen(request, timeout=60) as page:
            assert page.status == 200
            assert "No files yet" not in page.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{stack.url}{links['Run folder']}", timeout=60)


def test_down_and_up_keep_everything(stack, finished):
    password = stack.password
    stack.run("make", "down")
    stack.up()
    assert stack.password == password
    assert stack.state(finished) == "success"
    assert "train is complete and verified" in stack.log(finished, "train")
    say(f"memory after a restart: {stack.memory()}")


def test_plain_docker_compose_up_works_without_a_lake_and_make_up_takes_the_lake_over(tmp_path):
    stack = Stack(tmp_path)
    tmp_path.chmod(0o755)
    try:
        stack.up_without_make()
        assert stack.ask("details")["params"]["corpus"]["value"] == "/lake/corpora/shakespeare"
        assert (stack.lake_dir / "runs").stat().st_uid == 1000
        stack.env |= {"NIGHTJAR_UID": str(stack.uid), "NIGHTJAR_GID": str(stack.gid)}
        stack.up()
        assert (stack.lake_dir / "runs").stat().st_uid == stack.uid
    finally:
        stack.remove()
    assert stack.leftovers() == ""
