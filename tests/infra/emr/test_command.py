"""The translation of a step into a local command, without running it."""

import re
from pathlib import Path
from typing import cast

import pytest

from infra.emr.command import ClusterSpec, StepCommand, step_command, step_env
from infra.emr.instance_types import yarn_megabytes
from infra.emr.spark_submit import ENGINES, CommandError, Download, Engine

HOME = Path("/spark")


def make(*args: str, executors: str = "threads", java: str = "", **defaults: str) -> StepCommand:
    spark_defaults = {f"spark.{key.replace('_', '.')}": value for key, value in defaults.items()}
    spec = ClusterSpec("us-east-1", executors, spark_defaults, {})
    return step_command("command-runner.jar", ["spark-submit", *args], spec, HOME, java)


def master(*args: str, executors: str = "threads", **defaults: str) -> str:
    argv = make(*args, "app.py", executors=executors, **defaults).argv
    return argv[argv.index("--master") + 1]


def test_only_options_for_yarn_are_removed() -> None:
    yarn = ["--master", "yarn", "--deploy-mode=client", "--queue", "q", "--num-executors", "2", "--executor-memory=4g"]
    kept = ["--verbose", "--name", "my run", "--driver-memory", "2g", "--class", "A"]
    conf = ["spark.yarn.maxAppAttempts=1", "spark.pyspark.python=/opt/python", "spark.dynamicAllocation.enabled=false"]
    conf_kept = ["spark.ui.enabled=true", "spark.task.cpus=1", "spark.executor.heartbeatInterval=5s", "spark.x=a=b c"]
    flags = [part for item in conf + conf_kept for part in ("--conf", item)]
    argv = make(*yarn, *kept, *flags, "app.py", "--conf", "for=the app", "--master", "mine").argv
    assert argv == (
        *("/spark/bin/spark-submit", "--master", "local[2,4]", "--verbose", *kept[1:]),
        *(part for item in conf_kept for part in ("--conf", item)),
        *("app.py", "--conf", "for=the app", "--master", "mine"),
    )


@pytest.mark.parametrize("environ", [{}, {"SPARK_SUBMIT_OPTS": "-Xmx1g"}])
def test_the_environment_adds_no_options_of_the_jvm(environ: dict[str, str]) -> None:
    spec = ClusterSpec("us-east-1", "threads", {}, {})
    env = step_env(environ, "http://127.0.0.1:1", spec, HOME, Path("/scratch"), {})
    assert {key: value for key, value in env.items() if key == "SPARK_SUBMIT_OPTS"} == environ


def test_slots_follow_the_step_or_the_cluster_and_are_at_least_two() -> None:
    assert master() == "local[2,4]"
    assert master("--num-executors", "1") == "local[2,4]"
    assert master("--num-executors", "3", "--executor-cores", "2") == "local[6,4]"
    assert master("--conf", "spark.executor.instances=3") == "local[3,4]"
    assert master(executor_instances="5", executor_cores="2") == "local[10,4]"
    assert master("--num-executors=2", executor_instances="5", executor_cores="2") == "local[4,4]"
    assert master("--conf", "spark.task.maxFailures=1") == "local[2,1]"


def test_executors_as_processes_keep_their_sizes() -> None:
    sizes = ("--num-executors", "3", "--executor-cores", "2", "--executor-memory", "1536m")
    assert master(*sizes, executors="processes") == "local-cluster[3,2,1536]"
    assert master(executors="processes", executor_memory="2g") == "local-cluster[2,1,2048]"
    argv = make(*sizes, "app.py", executors="processes").argv
    assert "spark.executor.memory=1536m" in argv
    assert "spark.executor.cores=2" in argv


def test_files_are_downloaded_to_unique_names() -> None:
    folder = Path("/a lake/é").as_uri()
    made = make(
        *("--py-files", f"s3://lake/p/job.zip,{folder}/job.zip", "--files", "s3://lake/f.json#conf.json"),
        *("--conf", "spark.archives=s3://lake/venv.tar.gz#env", "--jars", "https://example.org/x.jar"),
        *(f"{folder}/the%20app.py", "s3://lake/input", f"{folder}/the%20app.py"),
    )
    assert made.downloads == (
        Download("s3://lake/p/job.zip", "job.zip"),
        Download(f"{folder}/job.zip", "1/job.zip"),
        Download("s3://lake/f.json", "f.json"),
        Download("s3://lake/venv.tar.gz", "venv.tar.gz"),
        Download(f"{folder}/the%20app.py", "the app.py"),
    )
    assert made.argv[3:] == (
        *("--py-files", "job.zip,1/job.zip", "--files", "f.json#conf.json", "--jars", "https://example.org/x.jar"),
        *("--conf", "spark.archives=venv.tar.gz#env", "the app.py", "s3://lake/input", f"{folder}/the%20app.py"),
    )


def test_step_overrides_the_clusters_settings_and_the_default_jvm_options() -> None:
    argv = make("--conf", "spark.a=step", "app.py", java="-XX:+Small", a="cluster", b="cluster").argv
    assert {"spark.a=step", "spark.b=cluster", "spark.driver.extraJavaOptions=-XX:+Small"} <= set(argv)
    own = make("--driver-java-options", "-Xss4m", "app.py", java="-XX:+Small").argv
    assert "-Xss4m" in own
    assert not any("Small" in arg for arg in own)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--name"], "--name has no value"),
        (["--conf", "nonsense", "app.py"], "nonsense is not KEY=VALUE"),
        (["--name", "x"], "the application is missing; name a .py file"),
        (["--num-executors", "many", "app.py"], "spark.executor.instances=many is not a whole number"),
    ],
)
def test_incomplete_command_is_refused(args: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        make(*args)


def test_unknown_kind_of_executors_is_refused() -> None:
    with pytest.raises(CommandError, match="threads, processes or yarn, not magic"):
        make("app.py", executors="magic")


def test_another_way_of_executing_is_one_entry_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    yarn = Engine(lambda _: "yarn", frozenset({"--master"}), re.compile(r"spark\.master"), own_jvms=True)
    monkeypatch.setitem(cast(dict[str, Engine], ENGINES), "yarn", yarn)
    argv = make("--master", "yarn", "--queue", "q", "app.py", executors="yarn", dynamicAllocation_enabled="true").argv
    conf = ("--conf", "spark.dynamicAllocation.enabled=true")
    assert argv == ("/spark/bin/spark-submit", "--master", "yarn", "--queue", "q", *conf, "app.py")


def test_other_commands_are_unchanged() -> None:
    spec = ClusterSpec("us-east-1", "threads", {"spark.a": "1"}, {})
    assert step_command("command-runner.jar", ["bash", "-c", "--master x"], spec, HOME, "") == StepCommand(
        ("bash", "-c", "--master x")
    )


def test_encryption_stays_on_except_for_executors_as_processes() -> None:
    conf = {"authenticate": "true", "network_crypto_enabled": "true", "io_encryption_enabled": "true"}
    for executors, kept in (("threads", 3), ("processes", 0)):
        argv = make("app.py", executors=executors, **conf).argv
        assert len([word for word in argv if word.endswith("=true")]) == kept


@pytest.mark.parametrize(
    ("workers", "sizes", "executors"),
    [
        ((11712,), ("--executor-memory", "2g", "--conf", "spark.executor.memoryOverheadFactor=1.0"), 2),
        ((11712, 11712), ("--executor-memory", "2g", "--conf", "spark.executor.memoryOverheadFactor=1.0"), 4),
        ((11712,), ("--executor-memory", "2g"), 4),
        ((4096,), ("--executor-memory", "3712m"), 1),
        ((4096, 4096), ("--executor-memory", "2g", "--conf", "spark.executor.memoryOverhead=1500"), 1),
        ((4096,), ("--executor-memory", "1g", "--conf", "spark.executor.pyspark.memory=1g"), 1),
        ((), ("--executor-memory", "900g"), 8),
    ],
)
def test_executors_that_do_not_fit_on_the_nodes_are_left_out(
    workers: tuple[int, ...], sizes: tuple[str, ...], executors: int
) -> None:
    spec = ClusterSpec("us-east-1", "processes", {}, {}, worker_megabytes=workers)
    args = ["spark-submit", "--num-executors", "8", *sizes, "app.py"]
    made = step_command("command-runner.jar", args, spec, HOME, "").argv
    assert made[made.index("--master") + 1].startswith(f"local-cluster[{executors},1,")


def test_executor_larger_than_any_node_is_refused_in_sparks_words() -> None:
    spec = ClusterSpec("us-east-1", "threads", {}, {}, worker_megabytes=(11712, 2048))
    with pytest.raises(CommandError, match=r"Required executor memory \(12288 MB\).* overhead \(1228 MB\)"):
        step_command("command-runner.jar", ["spark-submit", "--executor-memory=12g", "app.py"], spec, HOME, "")
    assert yarn_megabytes("m6i.xlarge") == 11712
    assert yarn_megabytes("m5.xlarge") == 12288
    assert yarn_megabytes("t2.nano") is None
