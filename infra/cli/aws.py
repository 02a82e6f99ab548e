"""Commands for AWS: ``nightjar aws-plan``, ``aws-check``, ``aws-smoke``, ``aws-deploy`` and ``aws-bundle``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from jobs.cli import options
from jobs.errors import InputError

_PANEL = "AWS"
_ROLE_ARN = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+")
_IGNORED = b"# Libraries that the DAGs import. Airflow would otherwise load each file as a plugin.\nnightjar/\njobs/\n"

app = typer.Typer()


Preset = Annotated[str, Option(metavar="NAME", help="Settings to start from.", autocompletion=options.complete_preset)]


@app.command("aws-plan", rich_help_panel=_PANEL)
def aws_plan(
    preset: Preset = "demo",
    lake: options.Lake = "s3://my-bucket/lake",
    corpus: Annotated[str, Option(metavar="URI", help="Text to train on.")] = "s3://my-bucket/lake/corpora/texts",
    settings: options.Settings = None,
) -> None:
    """Print and validate the requests that a run sends to EMR. No credentials and no network are needed."""
    import botocore

    from infra.aws.plan import plan, problems
    from jobs.config import parse_settings

    planned = plan(lake, corpus, preset, parse_settings(settings or ()))
    for operation, request in planned:
        sys.stdout.write(json.dumps({operation: request}, indent=2) + "\n")
    found = [problem for operation, request in planned for problem in problems(operation, request)]
    sys.stderr.writelines(f"aws-plan: {problem}\n" for problem in found)
    if found:
        raise InputError(f"the requests to EMR are not valid; fix the {len(found)} problems listed above")
    sys.stderr.write(f"aws-plan: {len(planned)} requests to EMR, all valid for botocore {botocore.__version__}\n")


@app.command("aws-check", rich_help_panel=_PANEL)
def aws_check(
    preset: Preset = "demo",
    airflow_role: Annotated[
        str | None, Option(metavar="ARN", help="Role of Airflow. Its permissions are checked as well.")
    ] = None,
    settings: options.Settings = None,
) -> None:
    """Check an AWS account before a run costs money: networks, roles, quotas, instance types, bucket and KMS key.

    Set the environment variables that aws-deploy printed; they name the deployment. Nothing is written and nothing is
    started. Each problem is printed with its fix.
    """
    from infra.aws.check.command import findings
    from infra.aws.check.findings import Deployment
    from jobs.config import environment_settings, parse_settings, resolve
    from jobs.lake.region import find_region
    from nightjar import settings as deployed

    region = find_region()
    if region is None:
        raise InputError("no region: set AWS_REGION to the region of your deployment")
    if airflow_role is not None and not _ROLE_ARN.fullmatch(airflow_role):
        raise InputError(
            f"--airflow-role {airflow_role!r}: not the ARN of a role; write arn:aws:iam::ACCOUNT:role/NAME"
        )
    config = resolve("s3://corpus", preset, {**environment_settings(), **parse_settings(settings or ())})
    deployment = Deployment(config, deployed.load().lake.uri, airflow_role, region)
    count = {"ok": 0, "problem": 0, "unknown": 0}
    for finding in findings(deployment):
        count[finding.level] += 1
        sys.stdout.write(f"{finding}\n")
        sys.stdout.flush()
    if count["problem"]:
        raise InputError(f"problems found: {count['problem']}; each line 'problem' above says what to do")
    sys.stderr.write(f"aws-check: no problem found, {count['unknown']} things could not be checked\n")


@app.command("aws-smoke", rich_help_panel=_PANEL)
def aws_smoke(
    output: Annotated[Path, Option(metavar="DIR", help="Folder for the zip file that is written.")] = Path(),
    yes: Annotated[bool, Option("--yes", help="Start the cluster, which costs money, without a question.")] = False,
    settings: options.Settings = None,
) -> None:
    """Run the smallest run on AWS, and record undocumented facts about the EMR release in a zip file.

    Set the environment variables that aws-deploy printed; they name the deployment. Check the deployment with aws-check
    first. The cluster is ended even if the run fails.
    """
    from infra.aws import smallest
    from jobs.config import environment_settings, parse_settings, resolve
    from jobs.lake.uri import is_s3
    from nightjar import settings as deployed

    chosen = parse_settings(settings or ())
    config = resolve("s3://corpus", "tiny", {**smallest.SMALL, **environment_settings(), **chosen})
    lake = deployed.load().lake.uri
    if not is_s3(lake):
        raise InputError(f"NIGHTJAR_LAKE: AWS cannot read {lake}; set the variables that aws-deploy printed")
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise InputError(f"there is no terminal to confirm the cost of {smallest.cost_text(config)}; give --yes")
        typer.confirm(f"Start {smallest.cost_text(config)}?", abort=True, err=True)
    from infra.aws import smoke  # after the confirmation, because it imports Airflow, which makes folders

    path = smoke.smoke(chosen, output.absolute(), poll_seconds=15.0)
    sys.stdout.write(f"{path}\n")


@app.command("aws-deploy", rich_help_panel=_PANEL)
def aws_deploy(
    env: Annotated[str, Argument(metavar="ENV", help="Name of the deployment, such as prod.")],
    parameters: Annotated[
        list[str] | None,
        Argument(metavar="Parameter=value", help="Parameters of template.yaml; those not given keep their values."),
    ] = None,
    destroy: Annotated[bool, Option("--destroy", help="Delete the stack; its bucket and KMS key are kept.")] = False,
) -> None:
    """Create or update a deployment on AWS, and print its outputs as environment variables for Airflow.

    The deployment is a CloudFormation stack. All changes to the stack are printed before they are made.
    """
    from infra.aws import deploy

    stack = deploy.stack_name(env)
    if destroy:
        deploy.destroy(stack)
        return
    sys.stdout.writelines(f"{line}\n" for line in deploy.deploy(stack, env, parameters or ()))


@app.command("aws-bundle", rich_help_panel=_PANEL)
def aws_bundle() -> None:
    """Write dags.zip, plugins.zip and requirements.txt to dist/, for Airflow on another system, such as Amazon MWAA."""
    from nightjar.packaging.build import PROJECT_ROOT, zip_bytes

    folder = PROJECT_ROOT / "dist"
    folder.mkdir(exist_ok=True)
    for name, files in (("dags.zip", bundled_dags()), ("plugins.zip", bundled_plugins())):
        data = zip_bytes(files)
        (folder / name).write_bytes(data)
        sys.stdout.write(f"{folder / name}: {len(data) / 1e6:.2f} MB\n")
    (folder / "requirements.txt").write_text(bundled_requirements(), "utf-8")
    sys.stdout.write(f"{folder / 'requirements.txt'}\n")


def bundled_dags() -> dict[str, bytes]:
    """Return a dict from the name of each DAG file to its content."""
    from nightjar.packaging.build import PROJECT_ROOT

    return {path.name: path.read_bytes() for path in sorted((PROJECT_ROOT / "dags").glob("*.py"))}


def bundled_requirements() -> str:
    """Return the content of requirements.txt: the packages that the DAGs need besides Airflow.

    The lines have no versions, because the constraints file of the Airflow that installs the packages has them.
    """
    from nightjar.packaging.build import PROJECT_ROOT

    lines = (PROJECT_ROOT / "requirements" / "airflow.in").read_text("utf-8").splitlines()
    names = (line.partition("==")[0].strip() for line in lines if not line.startswith("#"))
    return "".join(f"{name}\n" for name in names if name and name != "apache-airflow")


def bundled_plugins() -> dict[str, bytes]:
    """Return the files of plugins.zip, as a dict from each path in the plugins folder to the content.

    The files are the plugin, the packages `nightjar` and `jobs`, and the locked requirements.
    """
    from nightjar.packaging.build import PACKED_SUFFIXES, PROJECT_ROOT, TORCH_FILES

    files = {path.name: path.read_bytes() for path in sorted((PROJECT_ROOT / "plugins").glob("*.py"))}
    for source in (PROJECT_ROOT / "plugins" / "nightjar", PROJECT_ROOT / "jobs"):
        for path in sorted(path for path in source.rglob("*") if path.suffix in {*PACKED_SUFFIXES, ".js", ".sh"}):
            files[path.relative_to(source.parent).as_posix()] = path.read_bytes()
    for name in ("job.txt", *TORCH_FILES):
        files[f"requirements/{name}"] = (PROJECT_ROOT / "requirements" / name).read_bytes()
    return {**files, ".airflowignore": _IGNORED}
