"""Train a model for each combination of settings: ``nightjar sweep --vary train.learning_rate=0.001,0.003``."""

from __future__ import annotations

import json
import logging
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from jobs.cli import options
from jobs.cli.run import NewRun, run_to_the_end
from jobs.cli.runner import InterruptedRunError, command_line
from jobs.cli.tables import write_table
from jobs.errors import InputError, NightjarError
from jobs.lake.identity import PROJECT

if TYPE_CHECKING:
    from jobs.config.given import Given
    from jobs.results.summary import Summary

app = typer.Typer()
log = logging.getLogger("jobs")

MOST_COMPARED = 8
"""Largest number of runs that can be compared on the page of runs in Airflow's UI."""
_REQUEST_SECONDS = 60.0
_TOKEN, _USER, _PASSWORD = (f"NIGHTJAR_AIRFLOW_{name}" for name in ("TOKEN", "USER", "PASSWORD"))
Combination = Mapping[str, Any]


@app.command("sweep")
def sweep(
    *,
    vary: Annotated[
        list[str],
        Option(
            metavar="KEY=VALUES",
            help="Setting and its values, such as train.seed=1,2,3 or train.seed=[1,2,3]. Repeat the option for several"
            " settings: every combination is a run.",
            autocompletion=options.complete_setting,
            show_default=False,
        ),
    ],
    corpus: options.Corpus = None,
    lake: options.Lake = "lake",
    preset: options.Preset = None,
    config_file: options.ConfigFile = None,
    settings: options.Settings = None,
    name: Annotated[str | None, Option(metavar="NAME", help="Prefix of the runs' ids. Default: sweep-<time>.")] = None,
    most: Annotated[int, Option(metavar="N", min=1, help="Refuse a sweep of more than N runs.")] = 32,
    project: options.Project = PROJECT,
    engine: options.Engine = "inline",
    master: options.Master = None,
    airflow: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Trigger the runs in the Airflow at this URL. Set the environment variable"
            f" {_TOKEN}, or {_USER} and {_PASSWORD}, to log in.",
        ),
    ] = None,
    dag: Annotated[str, Option(metavar="DAG", help="The DAG of the runs in Airflow.")] = "train_llm",
) -> None:
    """Train a model for each combination of settings, and compare the models.

    The runs are experiments: none of their models is promoted. Without --airflow, they run one after the other on this
    machine. With --airflow, the DAG executes as many runs at a time as its max_active_runs allows. To continue an
    earlier sweep, give its --name again.
    """
    from jobs.config.given import gather
    from jobs.lake import store

    combinations = combine(vary, most)
    given = gather(config_file, settings or (), store.read_bytes, environ={} if airflow else os.environ)
    places = "\n".join(corpus) if corpus else given.corpus
    _check(combinations, given, places, preset)
    started = name or time.strftime("sweep-%Y%m%d-%H%M%S")
    named = {f"{started}-{number:02d}": each for number, each in enumerate(combinations, 1)}
    if airflow is not None:
        conf = {"corpus": places, "preset": preset or given.preset, **given.values}
        _trigger(airflow, dag, named, {key: value for key, value in conf.items() if value is not None})
        return
    _run(named, NewRun(corpus, lake, preset, config_file, settings, None, project), engine, master)


def combine(vary: Sequence[str], most: int) -> list[Combination]:
    """Return every combination of the values in `vary`. Its items have the form ``key=value,value,...``.

    In the result, the values of the last key change fastest.

    Raises:
        InputError: if an item is wrong, or if there are more than `most` combinations.
    """
    from jobs.config import flat_schema, unknown_key

    lists: dict[str, list[Any]] = {}
    for text in vary:
        key, found, values = text.partition("=")
        if not found:
            raise InputError(f"--vary {text}: write key=values, for example --vary train.seed=1,2,3")
        if key not in flat_schema():
            raise InputError(f"--vary {unknown_key(key)}")
        if key in lists:
            raise InputError(f"--vary {key}: named twice; give all values at once, such as {key}={values},...")
        lists[key] = _values(values)
        if not lists[key]:
            raise InputError(f"--vary {key}: has no values; write {key}=1,2 or a JSON list")
    number = math.prod(map(len, lists.values()))
    if number > most:
        raise InputError(f"--vary: {number} combinations are more than --most {most}; leave some out, or raise --most")
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def _values(text: str) -> list[Any]:
    from jobs.config import parse_value

    listed = parse_value(text)
    return listed if isinstance(listed, list) else [parse_value(part.strip()) for part in text.split(",")]


def _check(combinations: Iterable[Combination], given: Given, corpus: str | None, preset: str | None) -> None:
    """Resolve all combinations before any run starts, and raise InputError if one is wrong."""
    from jobs.config import Config, resolve

    start = preset or given.preset or str(Config.model_fields["preset"].default)
    for each in combinations:
        try:
            resolve(corpus or "file:///corpus", start, {**given.values, **each}, given.places)
        except InputError as error:
            raise InputError(f"{_shown(each)}: {error}") from None


def _run(named: Mapping[str, Combination], new: NewRun, engine: options.EngineName, master: str | None) -> None:
    """Run all combinations one after the other. If a run fails, the next ones still run."""
    from jobs.lake.layout import Lake
    from jobs.lake.uri import to_uri
    from jobs.results.summary import read_summary

    failed = []
    for run_id, combination in named.items():
        log.info("%s: %s", run_id, _shown(combination))
        chosen = [*(new.settings or ()), *(f"{key}={json.dumps(value)}" for key, value in combination.items())]
        try:
            run_to_the_end(new._replace(settings=chosen, run_id=run_id), engine, master)
        except (InputError, InterruptedRunError):
            raise
        except NightjarError as error:
            failed.append(run_id)
            log.error("%s: %s", run_id, error)
    lake = Lake(to_uri(new.lake))
    summaries = [read_summary(lake.run(run_id, project=new.project)) for run_id in named]
    write_table([_row(*each) for each in zip(summaries, named.values(), strict=True)])
    words = [summary.folder for summary in summaries[:MOST_COMPARED]]
    log.info("to compare the runs, use: %s", command_line("runs", "compare", "--lake", new.lake, *words))
    if failed:
        raise NightjarError(f"{len(failed)} of {len(named)} runs failed: {', '.join(failed)}")


def _row(summary: Summary, combination: Combination) -> dict[str, str]:
    values = {key: json.dumps(value, ensure_ascii=False) for key, value in combination.items()}
    return {
        "run": summary.run_id,
        **values,
        "state": str(summary.status),
        "validation loss": _exact(summary.valid_loss),
        "bits per byte": _exact(summary.bits_per_byte),
    }


def _exact(value: object) -> str:
    """Return a loss with four decimals, since the losses of a sweep may be nearly equal.

    Return "-" if `value` is not a number.
    """
    from jobs.lake.strict_json import as_number

    loss = as_number(value)
    return "-" if loss is None else f"{loss:.4f}"


def _shown(combination: Combination) -> str:
    return " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in combination.items())


def _trigger(url: str, dag: str, named: Mapping[str, Combination], conf: Mapping[str, Any]) -> None:
    """Trigger the runs in Airflow. Runs that exist already are left as they are."""
    if not url.startswith(("http://", "https://")):
        raise InputError(f"--airflow {url}: not an http or https URL; give one such as https://airflow.example.org")
    api = f"{url.rstrip('/')}/api/v2/dags/{dag}"
    token = _log_in(url.rstrip("/"))
    found = _ask(api, token)
    if found.get("is_paused"):
        log.warning("the DAG %s is paused: its runs wait until you unpause it", dag)
    for run_id, combination in named.items():
        body = {
            "dag_run_id": run_id,
            "logical_date": None,
            "conf": {"promotion.enabled": False, **conf, **combination},
        }
        is_new = _ask(f"{api}/dagRuns", token, body) is not None
        log.info("%s: %s %s", run_id, "triggered" if is_new else "exists already", _shown(combination))
    log.info(
        "to compare the runs in Airflow, open: %s/nightjar/runs/?q=%s",
        url.rstrip("/"),
        next(iter(named)).rpartition("-")[0],
    )


def _log_in(url: str) -> str:
    if token := os.environ.get(_TOKEN):
        return token
    try:
        login = {"username": os.environ[_USER], "password": os.environ[_PASSWORD]}
    except KeyError as error:
        raise InputError(f"{error.args[0]}: not set; set it, or {_TOKEN}, to log in to {url}") from None
    return str(_ask(f"{url}/auth/token", "", login)["access_token"])


def _ask(url: str, token: str, body: Mapping[str, Any] | None = None) -> Any:
    """Send a request to Airflow's API and return the answer. Return None if the object to create exists already."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - `_trigger` has checked the scheme
    try:
        with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as response:  # noqa: S310 - see above
            return json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == 409:
            return None
        detail = _detail(error)
        if error.code in (400, 401, 403, 404, 422):
            raise InputError(
                f"{url}: Airflow refused the request ({error.code} {detail}); check the login and the DAG"
            ) from None
        raise NightjarError(f"{url}: Airflow failed ({error.code} {detail}); see the log of its API server") from None
    except (OSError, ValueError) as error:
        raise NightjarError(
            f"{url}: no valid answer from Airflow ({error}); check that Airflow runs at this URL"
        ) from None


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])[:300]
    except (OSError, ValueError, KeyError, TypeError):
        return error.reason
