"""The command line: ``python -m jobs run --corpus text.txt --lake ./lake --preset tiny --engine inline``.

Also what the launcher calls on the cluster: ``spark-submit launcher.py train --config <lake>/runs/<id>/config.json``.
Exit codes: 0 done; 2 the input or configuration is wrong (one clear line); 1 anything else.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from jobs.config import Config, GenerateConfig, override, parse_settings, preset_names
from jobs.errors import InputError, NightjarError
from jobs.lake.layout import STEPS, Lake, Run
from jobs.lake.uri import join, to_uri
from jobs.metrics.training import baselines_text
from jobs.pipeline import read_config, run_all, run_step, start_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.engine.base import Engine

log = logging.getLogger("jobs")

TRACE = 5
_LEVELS = {
    "TRACE": TRACE,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(InputError.exit_code, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name and return the exit code."""
    options = _parser().parse_args(arguments)
    _log_to_stderr("INFO")
    try:
        options.command(options)
    except NightjarError as error:
        sys.stderr.write(f"nightjar: {error}\n")
        return error.exit_code
    except BrokenPipeError:  # whoever read the output, such as `head`, has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's own last flush is none
        return 141
    except (OSError, ClientError, BotoCoreError) as error:
        log.debug("traceback", exc_info=True)
        sys.stderr.write(f"nightjar: {type(error).__name__}: {error}\n")
        return 1
    except KeyboardInterrupt:
        is_of_a_run = options.command in (_run, _step, _embed)
        kept = "; finished work is kept, the same command goes on from it" if is_of_a_run else ""
        sys.stderr.write(f"nightjar: interrupted{kept}\n")
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    """All steps."""
    run_id = options.run_id or time.strftime("manual-%Y%m%d-%H%M%S")
    run = start_run(options.lake, run_id, "\n".join(options.corpus), options.preset, parse_settings(options.set))
    config = read_config(run)
    _log_to_stderr(config.log_level)
    slots = config.spark.executors * config.spark.executor_cores
    with _engine(options.engine, config, options.master or config.spark.master or f"local[{slots},4]") as engine:
        stats = run_all(run, engine)
    train = stats["train"]
    sys.stdout.write(
        f"validation loss {train['valid_loss']:.4f} (baselines: {baselines_text(train)})\n"
        f"statistics {join(run.stats, 'stats.txt')}\ntext       {join(run.generate, 'generated.txt')}\n"
    )


def _step(options: argparse.Namespace) -> None:
    """One step of a run whose configuration is there already."""
    run = Run.of_config(options.config)
    config = read_config(run)
    _log_to_stderr(config.log_level)
    with _engine(options.engine, config, options.master or config.spark.master) as engine:
        run_step(options.step, run, config, engine)


def _embed(options: argparse.Namespace) -> None:
    """Embeddings of a run's tokens; where words are given, their neighbours."""
    from jobs.cli.neighbours import neighbours_of  # noqa: PLC0415 - only this command needs what it imports

    run = Run.of_config(options.config) if options.config else Lake(to_uri(options.lake)).run(options.run)
    config = override(read_config(run), "embed", parse_settings(options.set))
    _log_to_stderr(config.log_level)
    with _engine(
        options.engine or ("spark" if options.config else "inline"), config, options.master or config.spark.master
    ) as engine:
        run_step("embed", run, config, engine)
    for line in neighbours_of(run, options.neighbours):
        sys.stdout.write(f"{line}\n")


def _sample(options: argparse.Namespace) -> None:
    """Text from a trained model."""
    from jobs.cli.sample import sample  # noqa: PLC0415 - torch takes seconds to import, and only this command needs it

    sample(options)


def _check_metrics(options: argparse.Namespace) -> None:
    """Tell what is wrong with a file of metrics."""
    from jobs.report.check import check_file  # noqa: PLC0415 - only this command needs it

    uri = to_uri(options.file)
    found = check_file(uri)
    for finding in found:
        sys.stdout.write(f"{options.file}: {finding}\n")
    if found:
        raise InputError(f"{options.file}: {len(found)} finding{'s' * (len(found) > 1)}")
    sys.stdout.write(f"{options.file}: nothing found\n")


def _export(options: argparse.Namespace) -> None:
    """A trained model in another form."""
    from jobs.cli.export import export  # noqa: PLC0415 - torch takes seconds to import, and not every command needs it

    export(options)


@contextmanager
def _engine(name: str, config: Config, master: str | None) -> Iterator[Engine]:
    if name == "inline":
        from jobs.engine.inline import InlineEngine  # noqa: PLC0415 - each engine with its libraries only when chosen

        yield InlineEngine()
        return
    from jobs.engine.spark import SparkEngine  # noqa: PLC0415 - a run on the inline engine needs no Spark

    engine = SparkEngine(config.spark, master)
    try:
        yield engine
    finally:
        engine.stop()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m jobs", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="all steps: tokenize, windows, train, generate; embed where it is asked for")
    run.add_argument(
        "--corpus",
        required=True,
        action="append",
        help="a file, folder or pattern of .txt, .jsonl, .parquet: path, file:///... or s3://...; may be repeated",
    )
    run.add_argument("--lake", default="lake", help="where everything is written: path, file:///... or s3://...")
    run.add_argument("--preset", default="demo", help=f"one of {', '.join(preset_names())}")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, e.g. train.seed=7")
    run.add_argument("--run-id", help="name of the run; the same name goes on with the same run")
    run.add_argument("--engine", choices=("inline", "spark"), default="inline", help="this process, or Spark")
    run.add_argument("--master", help="Spark master; default: local, with as many slots as executors x cores")
    run.set_defaults(command=_run)
    for step in (step for step in STEPS if step != "embed"):
        command = commands.add_parser(step, help=f"the step '{step}' of a run")
        command.add_argument("--config", required=True, metavar="URI", help="<lake>/runs/<run_id>/config.json")
        command.add_argument("--engine", choices=("inline", "spark"), default="spark", help="default: spark")
        command.add_argument("--master", help="Spark master; default: the one that spark-submit gives")
        command.set_defaults(command=_step, step=step)
    _add_embed(commands.add_parser("embed", help="vectors of a run's tokens (word2vec)"))
    _add_sample(commands.add_parser("sample", help="text from a trained model"))
    check = commands.add_parser("check-metrics", help="what is wrong with a file of training metrics (.csv)")
    check.add_argument("file", metavar="FILE", help="a metrics.csv: path, file:///... or s3://...")
    check.set_defaults(command=_check_metrics)
    _add_export(commands.add_parser("export", help="a trained model as a GGUF file, a zip file or a folder"))
    return parser


def _add_embed(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--config", metavar="URI", help="<lake>/runs/<run_id>/config.json")
    chosen.add_argument("--run", metavar="RUN", help="id of a run in the lake; it has been tokenized")
    parser.add_argument("--lake", default="lake", help="where runs are: path, file:///... or s3://...; with --run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in embed.size=64")
    parser.add_argument("--neighbours", nargs="+", default=[], metavar="WORD", help="print the words nearest to these")
    parser.add_argument("--engine", choices=("inline", "spark"), help="default: spark with --config, else inline")
    parser.add_argument("--master", help="Spark master; default: the one that spark-submit gives")
    parser.set_defaults(command=_embed)


def _add_sample(parser: argparse.ArgumentParser) -> None:
    default = GenerateConfig()
    _add_model(parser)
    parser.add_argument(
        "--prompt", help="text to continue, '' for a new document; default: asks in a terminal, else reads stdin"
    )
    parser.add_argument("--max-new-tokens", type=_positive, help=f"default: {default.max_new_words} words")
    parser.add_argument("--temperature", type=_not_negative, default=default.temperature, help="0 takes the likeliest")
    parser.add_argument("--top-k", type=_positive, default=default.top_k, help="draw among the k likeliest tokens")
    parser.add_argument("--top-p", type=_share, help="draw among the likeliest tokens that together have so much")
    parser.add_argument("--min-p", type=_share, help="draw among tokens of this share of the likeliest one")
    parser.add_argument("--repetition-penalty", type=_above_zero, default=default.repetition_penalty, help="above 1")
    parser.add_argument("--stop", type=_not_empty, action="append", default=[], metavar="TEXT", help="end before it")
    parser.add_argument("--seed", type=_seed, default=default.seed, help="the same seed gives the same text")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "int8"), default=default.dtype, help="of matrix products"
    )
    parser.set_defaults(command=_sample)


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("--format", choices=("gguf", "zip", "folder"), required=True, help="gguf is for llama.cpp")
    parser.add_argument("--output", required=True, help="file, or folder, to write: path, file:///... or s3://...")
    parser.set_defaults(command=_export)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="model folder or .zip, id or folder of a run, or champion")
    parser.add_argument("--lake", default="lake", help="where runs and the champion are: path, file:///... or s3://...")


def _checked(text: str, convert: type[int] | type[float], lowest: float, highest: float = math.inf) -> Any:
    if not lowest <= (number := convert(text)) <= highest:
        raise argparse.ArgumentTypeError(f"must be from {lowest:g} to {highest:g}")
    return number


# Named for argparse, which shows the name where the text is no number.
def _positive(text: str) -> int:
    return int(_checked(text, int, 1))


def _seed(text: str) -> int:
    return int(_checked(text, int, 0))


def _not_negative(text: str) -> float:
    return float(_checked(text, float, 0, sys.float_info.max))


def _above_zero(text: str) -> float:
    return float(_checked(text, float, sys.float_info.min, sys.float_info.max))


def _share(text: str) -> float:
    return float(_checked(text, float, sys.float_info.min, 1))


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _log_to_stderr(level: str) -> None:
    logging.addLevelName(TRACE, "TRACE")
    logging.addLevelName(logging.WARNING, "WARN")
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)-5s %(name)s: %(message)s", stream=sys.stderr
    )
    log.setLevel(_LEVELS[level])
