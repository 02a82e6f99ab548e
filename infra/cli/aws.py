"""Plan and make a deployment on AWS: ``nightjar aws-plan``, ``aws-deploy`` and ``aws-bundle``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from typer import Argument, Option

from jobs.cli import options
from jobs.errors import InputError

_PANEL = "AWS"

_PACKED_SUFFIXES = frozenset({".py", ".toml", ".sh"})
_IGNORED = b"# Libraries that the DAGs import. Airflow would otherwise load each file as a plugin.\nnightjar/\njobs/\n"

app = typer.Typer()


@app.command("aws-plan", rich_help_panel=_PANEL)
def aws_plan(
    preset: Annotated[
        str, Option(metavar="NAME", help="Settings to start from.", autocompletion=options.complete_preset)
    ] = "demo",
    lake: options.Lake = "s3://my-bucket/lake",
    corpus: Annotated[str, Option(metavar="URI", help="Text to train on.")] = "s3://my-bucket/lake/corpora/texts",
    settings: options.Settings = None,
) -> None:
    """Print the requests to EMR of a run, and validate them. No credentials and no network are needed."""
    import botocore

    from infra.aws.plan import plan, problems
    from jobs.config import parse_settings

    planned = plan(lake, corpus, preset, parse_settings(settings or ()))
    for operation, request in planned:
        sys.stdout.write(json.dumps({operation: request}, indent=2) + "\n")
    found = [problem for operation, request in planned for problem in problems(operation, request)]
    sys.stderr.writelines(f"aws-plan: {problem}\n" for problem in found)
    if found:
        raise InputError(f"{len(found)} problems in the requests to EMR; they are listed above")
    sys.stderr.write(f"aws-plan: {len(planned)} requests, valid for botocore {botocore.__version__}\n")


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

    The deployment is a CloudFormation stack. Its changes are printed before they are made.
    """
    from infra.aws import deploy

    stack = deploy.stack_name(env)
    if destroy:
        deploy.destroy(stack)
        return
    sys.stdout.writelines(f"{line}\n" for line in deploy.deploy(stack, env, parameters or ()))


@app.command("aws-bundle", rich_help_panel=_PANEL)
def aws_bundle() -> None:
    """Write dags.zip and plugins.zip to dist/, for an Airflow elsewhere, such as MWAA."""
    from nightjar.packaging.build import PROJECT_ROOT, zip_bytes

    folder = PROJECT_ROOT / "dist"
    folder.mkdir(exist_ok=True)
    for name, files in (("dags.zip", bundled_dags()), ("plugins.zip", bundled_plugins())):
        data = zip_bytes(files)
        (folder / name).write_bytes(data)
        sys.stdout.write(f"{folder / name}: {len(data) / 1e6:.2f} MB\n")


def bundled_dags() -> dict[str, bytes]:
    """Return the DAG files by their names."""
    from nightjar.packaging.build import PROJECT_ROOT

    return {path.name: path.read_bytes() for path in sorted((PROJECT_ROOT / "dags").glob("*.py"))}


def bundled_plugins() -> dict[str, bytes]:
    """Return the plugin and what the DAGs import: `nightjar`, `jobs`, and the locked requirements.

    The paths are those in the plugins folder.
    """
    from nightjar.packaging.build import PROJECT_ROOT

    files = {path.name: path.read_bytes() for path in sorted((PROJECT_ROOT / "plugins").glob("*.py"))}
    for source in (PROJECT_ROOT / "plugins" / "nightjar", PROJECT_ROOT / "jobs"):
        for path in sorted(path for path in source.rglob("*") if path.suffix in _PACKED_SUFFIXES):
            files[path.relative_to(source.parent).as_posix()] = path.read_bytes()
    for name in ("requirements/job.txt", "requirements/torch.txt"):
        files[name] = (PROJECT_ROOT / name).read_bytes()
    return {**files, ".airflowignore": _IGNORED}
