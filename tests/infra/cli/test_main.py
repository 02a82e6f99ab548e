"""The console command: the job's commands and its own, wrong commands, and completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.core import TyperGroup

from infra.cli import main as console
from infra.cli.main import main
from jobs.cli import main as jobs

HEAVY = ("torch", "pyspark", "pyarrow", "numpy", "botocore", "boto3", "moto", "airflow", "jobs.config")


def commands(app: typer.Typer) -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """All commands by name, those of groups too."""
    pending = [("", typer.main.get_command(app))]
    while pending:
        name, command = pending.pop()
        if isinstance(command, TyperGroup):
            pending += [(f"{name} {each}".strip(), inner) for each, inner in command.commands.items()]
        else:
            yield name, command


def test_it_has_the_commands_of_the_job_and_its_own() -> None:
    aws = {
        "aws-plan",
        "aws-deploy",
        "aws-check",
        "aws-smoke",
        "aws-bundle",
        "aws-package check",
        "aws-package wheelhouse",
    }
    own = {"emr", "prices", "serve", *aws}
    assert dict(commands(console.app)).keys() == dict(commands(jobs.app)).keys() | own


def test_every_command_and_option_has_a_help_text() -> None:
    for name, command in commands(console.app):
        assert command.help, name
        assert all(param.help for param in command.params), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nightjar: missing command; see nightjar --help"),
        (("aws-pln",), "no such command 'aws-pln'. Did you mean 'aws-plan'"),
        (("aws-package",), "nightjar aws-package: missing command; see nightjar aws-package --help"),
        (("aws-package", "check", "--arch", "mips"), "'mips' is not one of 'x86_64', 'aarch64'"),
        (("aws-deploy",), "missing argument 'ENV'"),
        (("aws-plan", "--preset", "huge"), "nightjar: preset 'huge' does not exist; choose one of"),
        (("aws-plan", "--set", "train.sed=3"), "nightjar: train.sed: unknown key; did you mean train.seed?"),
        (("aws-check", "--airflow-role", "me"), "nightjar: --airflow-role 'me': not the ARN of a role; write arn:"),
        (("aws-smoke",), "nightjar: NIGHTJAR_LAKE: AWS cannot read file:///"),
        (("prices", "--file", "s3://b/p.toml", "--preset", "huge"), "nightjar: preset 'huge' does not exist"),
        (("aws-bundle", "x"), "unexpected argument: x; see nightjar aws-bundle --help"),
        (("emr", "--port", "70000"), "--port"),
        (("emr", "--executors", "nomad"), "'nomad' is not one of 'threads', 'processes', 'yarn'"),
        (("emr", "--env", "x"), "nightjar: --env x: write NAME=VALUE"),
        (("sample",), "nightjar sample: missing option '--model'; see nightjar sample --help"),
    ],
)
def test_a_wrong_command_is_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert message in output.err


def test_a_plan_is_printed_as_requests(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTJAR_LAKE", "s3://lakes/night")
    monkeypatch.setenv("NIGHTJAR_CLUSTER_CORE_INSTANCES", "7")
    assert main(["aws-plan", "--preset", "tiny", "--set", "cluster.owner=ann"]) == 0
    output = capsys.readouterr()
    requests = output.out.split("\n}\n")
    assert "RunJobFlow" in json.loads(requests[0] + "}")
    assert "s3://lakes/night/" in output.out
    assert '"TargetOnDemandCapacity": 7' in output.out
    assert output.err.startswith("aws-plan: 5 requests to EMR, all valid for botocore ")


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, infra.cli.main as m; m.main(['--help']); print(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("nightjar aws-p", {"aws-plan", "aws-package"}),
        ("nightjar run --set train.batch", {"train.batch_size="}),
        ("nightjar run --preset t", {"tiny"}),
        ("nightjar embed --engine s", {"spark"}),
    ],
)
def test_the_shell_completes_commands_and_values(words: str, found: set[str]) -> None:
    variables = {"_NIGHTJAR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli"],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )
    assert set(done.stdout.split()) == found, done.stderr
