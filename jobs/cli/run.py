"""Commands that run the pipeline, run one of its steps, or check a file of metrics: ``python -m jobs train``."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer import Option

from jobs.cli import options
from jobs.cli.attempt import stopped_by_sigterm
from jobs.cli.runner import InterruptedRunError, command_line, log, log_to_stderr
from jobs.errors import InputError, StoppedError
from jobs.lake.identity import PROJECT

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.engine.base import Engine
    from jobs.lake.layout import Run

app = typer.Typer()

_STEPS = "Single steps of a run, as a cluster runs them"


@app.command("run")
def run(
    *,
    corpus: options.Corpus = None,
    lake: options.Lake = "lake",
    preset: options.Preset = None,
    config_file: options.ConfigFile = None,
    settings: options.Settings = None,
    run_id: options.RunId = None,
    project: options.Project = PROJECT,
    engine: options.Engine = "inline",
    master: options.Master = None,
) -> None:
    """Train a model on a text, and generate text with the model: all steps of the pipeline.

    The steps are tokenize, windows, train and generate. With train.embeddings=embed, the step embed runs before train.
    With use.model, an existing model is used instead: it generates text, or is evaluated on a text.

    Settings come from the preset, from --config-file, from environment variables NIGHTJAR_<SECTION>_<KEY>, and from
    --set. If several of these set the same key, the last of them wins.
    """
    from jobs.lake.models import read_used
    from jobs.lake.uri import join, readable
    from jobs.metrics.columns import baselines_text

    new = NewRun(corpus, lake, preset, config_file, settings, run_id, project)
    started, stats = run_to_the_end(new, engine, master)
    lines = {"report": readable(started.report)}
    if "generate" in stats:
        lines["text"] = readable(join(started.generate, "generated.txt"))
    if "evaluate" in stats:
        from jobs.steps.evaluate import describe_loss

        lines["losses"] = readable(started.evaluation)
        sys.stdout.write(f"{describe_loss(stats['evaluate'])}\n")
    if "train" in stats:
        train = stats["train"]
        sys.stdout.write(f"validation loss {train['valid_loss']:.4f} (baselines: {baselines_text(train)})\n")
        if train["valid_loss"] >= train.get("unigram_loss", math.inf):
            sys.stdout.write(
                "The model has learned nothing yet: its loss is not below that of the tokens' frequencies alone"
                " (unigram). Train longer, such as with --set train.epochs=20, or give more text.\n"
            )
        lines["next"] = command_line("sample", "--lake", lake, "--model", started.run_id, "--prompt", "The man")
    elif "generate" in stats and (used := read_used(started)):
        lines["next"] = command_line("sample", "--lake", lake, "--model", readable(used.uri), "--prompt", "The man")
    else:
        lines["next"] = command_line("runs", "show", started.folder, "--lake", lake)
    sys.stdout.writelines(f"{label:<10} {text}\n" for label, text in lines.items())


def run_to_the_end(new: NewRun, engine: options.EngineName, master: str | None) -> tuple[Run, dict[str, Any]]:
    """Start or continue a run, and execute all its steps. Return the run and the statistics by step."""
    from jobs.cli.progress import show_progress
    from jobs.pipeline import read_config, run_all

    started = _start(new, engine)
    config = read_config(started)
    opened = opened_engine(engine, config, master, local=local_master(config), events=started.spark_events)
    with held_run(started), opened as chosen:
        return started, run_all(started, chosen, lambda step: show_progress(started, step, config.log_level))


def local_master(config: Config) -> str:
    """Return the Spark master URL to run all steps on this machine, with a slot for each training task."""
    spark = config.spark.filled(config.train.workers)
    return f"local[{(spark.executors or 1) * (spark.executor_cores or 1)},4]"


class NewRun(NamedTuple):
    """The options that describe a run. The run may already exist."""

    corpus: list[str] | None
    lake: str
    preset: str | None
    config_file: str | None
    settings: list[str] | None
    run_id: str | None
    project: str


def _start(new: NewRun, engine: options.EngineName) -> Run:
    """Start a run, or continue it if it exists with the same configuration. Log the settings from the environment."""
    from jobs.config import Config
    from jobs.config.given import gather
    from jobs.lake import store
    from jobs.lake.layout import Lake
    from jobs.lake.runs import located
    from jobs.lake.uri import to_uri
    from jobs.pipeline import start_run

    given = gather(new.config_file, new.settings or (), store.read_bytes)
    if given.from_environment:
        shown = ", ".join(f"{key}={value}" for key, value in given.from_environment.items())
        log.info("settings from the environment: %s", shown)
    corpus = "\n".join(new.corpus) if new.corpus else given.corpus or ""
    preset = new.preset or given.preset or str(Config.model_fields["preset"].default)
    lake, run_id = Lake(to_uri(new.lake)), new.run_id or time.strftime("manual-%Y%m%d-%H%M%S")
    run, earlier = lake.run(run_id, project=new.project), lake.earlier_run(run_id)
    if earlier.folder == run_id:  # another folder could belong to a run with another id
        run = located(run, earlier)
    return start_run(run, corpus, preset, given.values, given.places, engine)


def _add_step(step: str, text: str) -> None:
    """Add the command that runs one step, with the help text `text`."""

    def command(
        *,
        config: options.Config = None,
        corpus: options.Corpus = None,
        lake: options.Lake = "lake",
        preset: options.Preset = None,
        config_file: options.ConfigFile = None,
        settings: options.Settings = None,
        run_id: options.RunId = None,
        project: options.Project = PROJECT,
        engine: options.Engine = "spark",
        master: options.Master = None,
        attempt: options.Attempt = None,
        owner: options.Owner = None,
    ) -> None:
        new = NewRun(corpus, lake, preset, config_file, settings, run_id, project)
        is_new = config is None
        _check_attempt(attempt, config)
        if config is None:
            if run_id is None:
                raise InputError(f"{step}: no run is named; give --config URI or --run-id NAME")
            config = _start(new, engine).config
        elif given := [
            name for name, value in new._asdict().items() if value is not None and name not in ("lake", "project")
        ]:
            option = "--set" if given[0] == "settings" else f"--{given[0].replace('_', '-')}"
            raise InputError(
                f"{option}: cannot be combined with --config, whose run has its settings already; use --run-id instead"
                " of --config"
            )
        _run_step(step, config, engine, master, owner=owner, is_new=is_new)

    app.command(step, help=text, rich_help_panel=_STEPS)(command)


_add_step("tokenize", "Run the tokenize step of a run: from text to token ids.")
_add_step("windows", "Run the windows step of a run: from token ids to windows to train and validate on.")


@app.command("embed", rich_help_panel=_STEPS)
def embed(
    config: Annotated[str | None, Option(metavar="URI", help="The run's config.json, in its folder.")] = None,
    run_id: Annotated[
        str | None, Option("--run", metavar="RUN", help="Id of a run in the lake, instead of --config.")
    ] = None,
    lake: options.Lake = "lake",
    settings: options.Settings = None,
    neighbours: Annotated[
        list[str] | None,
        Option(metavar="WORD", help="Print the words nearest to this one. Repeat the option for several words."),
    ] = None,
    engine: Annotated[
        options.EngineName | None, Option(help="Default: spark with --config, inline (processes) with --run.")
    ] = None,
    master: options.Master = None,
    attempt: options.Attempt = None,
    owner: options.Owner = None,
) -> None:
    """Run the embed step of a tokenized run: learn a vector for each token (word2vec).

    Settings of the section embed can be changed, for example with --set embed.size=64.
    """
    from jobs.lake.layout import Lake, Run
    from jobs.lake.runs import find_run
    from jobs.lake.uri import to_uri

    _check_attempt(attempt, config)
    if (config is None) == (run_id is None):
        raise InputError("embed: name the run by either --config URI or --run RUN, and not by both")
    run = Run.of_config(config) if config is not None else find_run(str(run_id), Lake(to_uri(lake)))
    chosen = engine or ("inline" if config is None else "spark")
    _run_step("embed", run.config, chosen, master, settings or (), owner=owner)
    for line in neighbours_of(run, neighbours or ()):
        sys.stdout.write(f"{line}\n")
    if run_id is not None:
        log.info("next: %s", _next_of_embed(run, lake, has_neighbours=bool(neighbours)))


def _next_of_embed(run: Run, lake: str, *, has_neighbours: bool) -> str:
    """Return the command that the user may try after `embed`.

    If `has_neighbours` is true, the neighbours of words have just been printed, and the returned command trains a model
    that starts from the vectors. If it is false, the returned command prints the neighbours of a word.
    """
    from jobs.datasets.tokens import TokensDataset
    from jobs.embeddings.files import read_embeddings
    from jobs.lake.layout import Lake
    from jobs.lake.models import TOKENIZER
    from jobs.lake.runs import used_datasets
    from jobs.lake.uri import join, readable
    from jobs.pipeline import read_config

    if not has_neighbours:
        return command_line("embed", "--run", run.folder, "--lake", lake, "--neighbours", "WORD")
    vectors = Lake(run.lake_uri).dataset("embeddings", used_datasets(run)["embeddings"])
    values = {
        "train.embeddings": readable(vectors),
        "model.embedding_size": read_embeddings(vectors).vectors.shape[1],
        "tokenize.tokenizer": readable(join(TokensDataset.of_run(run).uri, TOKENIZER)),
    }
    corpus = [part for place in read_config(run).corpus.splitlines() for part in ("--corpus", readable(place))]
    options = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    return command_line("run", *corpus, "--lake", lake, *options)


_add_step("train", "Run the train step of a run: train the model, and write it with its statistics.")
_add_step("generate", "Run the generate step of a run: continue the prompts with the trained model.")
_add_step("score", "Run the score step of a run: compare its model with the champion on the frozen evaluation set.")
_add_step("evaluate", "Run the evaluate step of a run: compute the loss of its model on its corpus.")


def _check_attempt(attempt: int | None, config_uri: str | None) -> None:
    """Raise InputError if --attempt is given without --config, which names the run's folder for `jobs.cli.attempt`."""
    if attempt is not None and config_uri is None:
        raise InputError("--attempt: works only with --config; give --config URI, which names the run")


def _run_step(
    step: str,
    config_uri: str,
    engine: options.EngineName,
    master: str | None,
    settings: Sequence[str] = (),
    *,
    owner: str | None = None,
    is_new: bool = False,
) -> None:
    from jobs.config import override, parse_settings
    from jobs.lake.layout import Run
    from jobs.pipeline import read_config, run_step, warn_inert_in_step

    run = Run.of_config(config_uri)
    config = override(read_config(run), step, parse_settings(settings))
    with held_run(run, owner), opened_engine(engine, config, master, events=run.spark_events) as chosen:
        if not is_new:  # `start_run` has warned about a new run
            warn_inert_in_step(step, run, config)
        run_step(step, run, config, chosen, is_checked=is_new)


@app.command("facts", hidden=True)
def facts(
    config: Annotated[str, Option(metavar="URI", help="The run's config.json, in its folder.")],
    attempt: options.Attempt = None,
    engine: options.Engine = "spark",
    master: options.Master = None,
    owner: options.Owner = None,
) -> None:
    """Write facts about a cluster's machines to the run's folder, for `nightjar aws-smoke`."""
    from jobs.engine.machine_facts import of_machine
    from jobs.lake import store
    from jobs.lake.layout import Run
    from jobs.lake.uri import join
    from jobs.pipeline import read_config

    _check_attempt(attempt, config)
    run = Run.of_config(config)
    resolved = read_config(run)
    with held_run(run, owner), opened_engine(engine, resolved, master) as chosen:
        slots = resolved.spark.filled(resolved.train.workers)
        places = range((slots.executors or 1) * (slots.executor_cores or 1))
        found = {"driver": of_machine(), "executors": chosen.map(of_machine, places, "facts")}
    store.write_bytes(join(run.uri, "smoke", "facts.json"), (json.dumps(found, indent=1) + "\n").encode())


@app.command("check-metrics")
def check_metrics(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A metrics.csv: path, file:///... or s3://...", show_default=False)
    ],
) -> None:
    """Check a file of training metrics (.csv) for defects, such as a loss that is not a number."""
    from jobs.lake.uri import to_uri
    from jobs.statistics.check import check_file

    found = check_file(to_uri(file))
    for finding in found:
        sys.stdout.write(f"{file}: {finding}\n")
    if found:
        raise InputError(f"{file}: {len(found)} defect{'s' * (len(found) > 1)} found")
    sys.stdout.write(f"{file}: no defects found\n")


def neighbours_of(run: Run, words: Sequence[str], count: int = 8) -> Iterator[str]:
    """Yield a line with the folder of the embeddings, then a line with the nearest tokens of each word in `words`."""
    from jobs.datasets.tokens import TokensDataset
    from jobs.embeddings.files import read_embeddings, token_names
    from jobs.embeddings.uses import Neighbours, find_token
    from jobs.lake.layout import Lake
    from jobs.lake.runs import used_datasets

    folder_uri = Lake(run.lake_uri).dataset("embeddings", used_datasets(run)["embeddings"])
    yield f"embeddings {folder_uri}"
    if not words:
        return
    tokenizer = TokensDataset.of_run(run).read_tokenizer()
    names, neighbours = token_names(tokenizer.json), Neighbours(read_embeddings(folder_uri))
    ids = {name: token_id for token_id, name in enumerate(names)}
    for word in words:
        nearest = neighbours.nearest(find_token(word, tokenizer.encode, names, neighbours), count)
        yield f"{word:<12}" + "  ".join(
            f"{tokenizer.decode([ids[name]]).strip()} {cosine:.2f}" for name, cosine in nearest
        )


@contextmanager
def held_run(run: Run, owner: str | None = None) -> Iterator[None]:
    """Hold the run's lock while the block runs. If another program takes over the lock, stop this program.

    Raises:
        StoppedError: if another program took over the lock, or if SIGTERM arrived.
    """
    from jobs.lake.lock import locked

    reasons: list[str] = []

    def stop(reason: str) -> None:
        reasons.append(reason)
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        with stopped_by_sigterm(), locked(run, owner, lost=stop):
            yield
    except StoppedError:
        if reasons:
            raise StoppedError(f"{reasons[0]}; this program has stopped, and its finished work is kept") from None
        raise


@contextmanager
def opened_engine(
    name: options.EngineName, config: Config, master: str | None, local: str | None = None, events: str | None = None
) -> Iterator[Engine]:
    """Set up logging and yield the engine. Turn Ctrl-C into an error that says how to continue the run.

    The Spark master is `master`, or else the setting spark.master, or else `local`. `events` is the URI of the folder
    to which Spark writes its event log.
    """
    log_to_stderr(config.log_level)
    try:
        if name == "inline":
            from jobs.engine.inline import InlineEngine

            yield InlineEngine()
            return
        from jobs.engine.spark import SparkEngine

        spark = config.spark.filled(config.train.workers)
        engine = SparkEngine(spark, master or config.spark.master or local, events)
        try:
            yield engine
        except BaseException:
            with suppress(Exception):  # the JVM may be gone; the first error is the one to report
                engine.stop()
            raise
        engine.stop()
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "interrupted; finished work is kept; run the same command again to continue"
        ) from None
