"""The champions of a lake's pipelines: ``nightjar champion list``, ``show``, ``diff``, ``promote`` and ``rollback``."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from jobs.cli import options
from jobs.cli.runner import command_line, user_name
from jobs.cli.tables import write_pairs, write_table
from jobs.errors import InputError, counted
from jobs.lake.identity import DEFAULT, LOCAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs.lake.champion import Champion, Change
    from jobs.lake.layout import Pipeline

_MODEL_CHARACTERS = 12
"""Number of characters of a model's fingerprint that are shown. They are enough to name the model in a command."""

PipelineName = Annotated[str, Argument(metavar="PIPELINE", help="Name of the pipeline.")]

log = logging.getLogger(__name__)

app = typer.Typer()
champion = typer.Typer(help="Show, promote and roll back the champions of pipelines.", no_args_is_help=True)
app.add_typer(champion, name="champion")


@champion.command("list")
def list_champions(lake: options.Lake = "lake") -> None:
    """List the champions of all pipelines of a lake."""
    from jobs.lake.champion import all_pipelines, read_champion
    from jobs.lake.layout import Lake
    from jobs.lake.uri import to_uri

    rows = []
    for pipeline in all_pipelines(Lake(to_uri(lake))):
        found, _ = read_champion(pipeline)
        if found is not None:
            last = found.history[-1] if found.history else None
            rows.append(
                {
                    "pipeline": pipeline.name,
                    "run": found.run_id,
                    "model": found.model[:_MODEL_CHARACTERS],
                    "since": last.time if last else "-",
                    "by": last.by if last else "-",
                    "judged by": ", ".join(f"{name} {value}" for name, value in _numbers(found.metrics).items()),
                }
            )
    write_table(rows, ("by", "since", "model"))
    if not rows:
        sys.stderr.write(f"{lake}: no champion yet; a run of the DAG train_llm promotes one\n")


@champion.command("show")
def show_champion(pipeline: PipelineName = DEFAULT, lake: options.Lake = "lake") -> None:
    """Show the champion of a pipeline, its lineage, and the history of champions: when, by whom and why."""
    from jobs.lake.uri import readable
    from jobs.model_io.lineage import read_lineage

    found = _read(pipeline, lake)
    lineage = read_lineage(found.model_uri)
    known = lineage.essentials() if lineage else {}
    judged_on, made_with = found.metrics.get("evaluation_set"), lineage.evaluation_set if lineage else ""
    known["evaluation set"] = _evaluation_set(judged_on or "", made_with)
    lines = {"pipeline": pipeline, "run": found.run or found.run_id, "model": readable(found.model_uri)}
    write_pairs(lines | _numbers(found.metrics) | known)
    write_table(
        [
            {
                "time": each.time,
                "change": each.action,
                "run": each.run,
                "model": each.model[:_MODEL_CHARACTERS],
                "by": each.by,
                "why": each.why,
            }
            for each in found.history
        ],
        ("model", "by"),
    )


@champion.command("diff")
def compare_champions(
    pipeline: PipelineName = DEFAULT,
    run: Annotated[
        str | None, Option(metavar="RUN", help="Run to compare with. Default: the run of the previous champion.")
    ] = None,
    lake: options.Lake = "lake",
) -> None:
    """Compare the run of a champion with another run: results, curves, and the settings that differ."""
    from jobs.cli.runs import compare_runs

    found = _read(pipeline, lake)
    earlier = [each.run for each in found.history if each.model != found.model]
    other = run or (earlier[-1] if earlier else None)
    if other is None:
        raise InputError(
            f"champion diff: pipeline {pipeline} has no previous champion; choose a run to compare with by --run"
        )
    compare_runs([other, found.run or found.run_id], lake)


@champion.command("promote")
def promote_run(
    run: Annotated[str, Argument(metavar="RUN", help="Id of a run in the lake, or PIPELINE/ID.", show_default=False)],
    pipeline: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Pipeline whose champion changes. Default: the run's pipeline, or `default` if the run is local.",
            show_default=False,
        ),
    ] = None,
    why: Annotated[str, Option(metavar="TEXT", help="The reason, for the history.")] = "by hand",
    lake: options.Lake = "lake",
) -> None:
    """Make the model of a run the champion of a pipeline without a comparison.

    Runs of the DAG promote a better model by themselves. Use this command for a model that cannot be compared with the
    champion, such as a model of another kind.
    """
    from jobs.lake.champion import promote_by_hand
    from jobs.lake.layout import Lake, Pipeline
    from jobs.lake.runs import find_run
    from jobs.lake.uri import to_uri
    from jobs.results.summary import read_summary

    found = find_run(run, Lake(to_uri(lake)), is_started=False)
    summary = read_summary(found)
    metrics = {"bits_per_byte": summary.bits_per_byte, "valid_loss": summary.valid_loss}
    name = pipeline or (DEFAULT if found.pipeline == LOCAL else Pipeline.of(found).name)
    change = promote_by_hand(found, _pipeline(name, lake), f"command line: {user_name()}", why, metrics)
    _write_change(name, change)
    place = ("--lake", lake, "--model", f"champion:{name}")
    log.info("next: %s", command_line("sample", *place, "--prompt", "The man"))


@champion.command("rollback")
def roll_back_champion(
    pipeline: PipelineName = DEFAULT,
    to: Annotated[
        str,
        Option(
            metavar="MODEL",
            help="Earlier champion: the first characters of its model's fingerprint, or the id of the run that trained"
            " it. Default: the previous champion.",
        ),
    ] = "",
    why: Annotated[str, Option(metavar="TEXT", help="The reason, for the history.")] = "by hand",
    lake: options.Lake = "lake",
) -> None:
    """Make an earlier champion of a pipeline the champion again, after a check that its model is complete."""
    from jobs.lake.champion import roll_back

    change = roll_back(_pipeline(pipeline, lake), f"command line: {user_name()}", why, to)
    _write_change(pipeline, change)
    log.info("next: %s", command_line("champion", "show", pipeline, "--lake", lake))


def _write_change(pipeline: str, change: Change) -> None:
    sys.stdout.write(f"champion of pipeline {pipeline}: run {change.run}, model {change.model[:_MODEL_CHARACTERS]}\n")


def _pipeline(name: str, lake: str) -> Pipeline:
    from jobs.lake.layout import Lake
    from jobs.lake.uri import to_uri

    return Lake(to_uri(lake)).pipeline(name)


def _read(name: str, lake: str) -> Champion:
    from jobs.lake.champion import no_champion_error, read_champion

    pipeline = _pipeline(name, lake)
    found, _ = read_champion(pipeline)
    if found is None:
        raise no_champion_error(pipeline, "a run of the DAG train_llm promotes one")
    return found


def _numbers(metrics: Mapping[str, object]) -> dict[str, str]:
    """Return the results by which a champion was judged, as a dict from label to value with unit.

    Results that are not known are left out.
    """
    from jobs.lake.strict_json import as_number
    from jobs.results.text import with_unit

    bits, loss = as_number(metrics.get("bits_per_byte")), as_number(metrics.get("valid_loss"))
    is_of_tokens = bits is not None  # a model that predicts embeddings has no bits per byte
    texts = {
        "bits per byte": "" if bits is None else with_unit(bits, ""),
        "valid loss": "" if loss is None else with_unit(loss, "nats per token" if is_of_tokens else "squared distance"),
        "gain": _gain(metrics.get("gain")),
    }
    return {label: text for label, text in texts.items() if text}


def _gain(found: object) -> str:
    """Describe how much a champion's loss differs from the previous champion's.

    `found` is the entry "gain" of the champion's metrics. Return "" if the two models were not compared.
    """
    from jobs.lake.strict_json import as_number
    from jobs.results.text import with_unit

    values = found if isinstance(found, dict) else {}
    if (gain := as_number(values.get("value"))) is None:
        return ""
    documents = as_number(values.get("num_documents"))
    on = f", on {counted(int(documents), 'document')}" if documents is not None else ""
    return f"loss {with_unit(abs(gain), 'share')} {'higher' if gain < 0 else 'lower'} than the previous champion's{on}"


def _evaluation_set(judged_on: str, made_with: str) -> str:
    """Describe the version of the evaluation set on which a champion was judged (`judged_on`).

    If the set had another version when the model was made (`made_with`), describe both versions. An argument is "" if
    there was no evaluation set at that time.
    """
    if made_with and judged_on not in ("", made_with):
        return f"version {judged_on}, and {made_with} when the model was made"
    version = judged_on or made_with
    return f"version {version}" if version else "none yet"
