"""The pages of runs: the list, one run, and several runs compared. The pages only read, and work without scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi import Query as Value
from fastapi.responses import Response

from jobs.errors import InputError
from jobs.lake.layout import Run
from jobs.lake.names import is_plain
from jobs.lake.runs import located
from jobs.lake.uri import join, relative_name
from jobs.results import SortKey
from jobs.results.catalog import Query
from jobs.results.comparison import Comparison, names_of
from jobs.results.report import shown
from jobs.results.summary import Status
from jobs.results.table import COLUMNS, cells
from nightjar import settings
from nightjar.emr.records import ClusterRecords
from nightjar.web import sampling
from nightjar.web.access import READ_RUNS
from nightjar.web.reading import LakeReader, Source
from nightjar.web.responses import message, respond

PER_PAGE = 50
MOST_COMPARED = 8
"""Maximum number of runs that are compared. Each run has a colour of its own."""
LIST_SECONDS = {True: 10.0, False: 60.0}
"""Time between two updates of the list, with and without runs in progress. For a lake in S3, each update needs 150
requests."""
RUN_SECONDS = {Status.RUNNING: 3.0, Status.UNFINISHED: 15.0}
"""Shortest time between two updates of a run's page. The page of a run that has ended is not updated."""
WAIT_SECONDS = 5.0
"""Time between two checks for a run that is not in the lake yet."""
_BELOW = "cost_usd"
"""The column whose values are shown below the instance time. A window is too narrow for a column of its own."""
_FILES: Mapping[str, Callable[[Run], str]] = {
    "report": lambda run: run.report,
    "metrics.csv": lambda run: join(run.stats, "metrics.csv"),
    "statistics": lambda run: join(run.stats, "stats.txt"),
    "configuration": lambda run: run.config,
    "generated text": lambda run: join(run.generate, "generated.txt"),
}
"""The files to which a run's page links: a dict from the link's label to a function that returns the file's URI."""
_READ_ITS_RUNS = Depends(requires_access_dag("GET", DagAccessEntity.RUN))  # of the DAG that the address names

router = APIRouter(dependencies=[READ_RUNS])


@router.get("/runs")
@router.get("/runs/", include_in_schema=False)
def list_runs(
    request: Request,
    source: Source,
    q: Annotated[str, Value(max_length=200)] = "",
    status: Annotated[list[Status] | None, Value(max_length=len(Status))] = None,
    sort: SortKey = "started",
    order: Literal["asc", "desc"] = "desc",
    page: Annotated[int, Value(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Return a page of the list of runs."""
    query = Query(q, frozenset(status or Status), sort, order == "desc", (page - 1) * PER_PAGE, PER_PAGE)
    found = source.page(query)
    if found is None:
        waiting = respond(request, "loading.html")
        waiting.headers["Refresh"] = "2"  # works without scripts
        return waiting
    chosen = {"q": q, "status": [str(each) for each in status or ()], "sort": sort, "order": order}
    last = max(1, -(-found.total // PER_PAGE))
    is_live = any(each.status is Status.RUNNING for each in found.runs)
    return respond(
        request,
        "runs.html",
        found=found,
        rows=[(each, cells(each), found.is_champion(each)) for each in found.runs],
        columns=[_column(key, label, chosen) for key, label in COLUMNS.items() if key != _BELOW],
        chosen=chosen,
        states=list(Status),
        place=(page, last, _query(chosen, page=min(page - 1, last)), _query(chosen, page=page + 1)),
        most_compared=MOST_COMPARED,
        live={"seconds": LIST_SECONDS[is_live], "source": f"?{_query(chosen, page=page)}"},
    )


def _column(key: SortKey, label: str, chosen: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return a column's key, its label, its value of ``aria-sort``, and the query string that sorts by the column."""
    is_chosen = key == chosen["sort"]
    order = {"asc": "desc", "desc": "asc"}[chosen["order"]] if is_chosen else "desc" if key == "started" else "asc"
    state = {"asc": "ascending", "desc": "descending"}[chosen["order"]] if is_chosen else ""
    return key, label, state, _query(chosen, sort=key, order=order)


def _query(chosen: dict[str, Any], **changes: object) -> str:
    """Return `chosen`, updated with `changes`, as the query string of an address. Empty values are left out."""
    values = {key: value for key, value in {**chosen, **changes}.items() if value}
    return urlencode(values, doseq=True)


@router.get("/runs/compare")
def compare(
    request: Request, source: Source, run: Annotated[list[str] | None, Value(max_length=MOST_COMPARED)] = None
) -> Response:
    """Return a page that compares several runs."""
    folders = list(dict.fromkeys(run or ()))
    if len(folders) < 2:
        return message(request, HTTPStatus.BAD_REQUEST, "Choose two runs or more", "Mark them in the list of runs.")
    runs = [source.run(folder) for folder in folders]
    reports = [source.report(each)[0] for each in runs]
    comparison = Comparison(names_of(runs), reports)
    return respond(
        request,
        "compare.html",
        comparison=comparison,
        heads=[(name, quote(each.folder)) for name, each in zip(comparison.names, runs, strict=True)],
    )


@router.get("/runs/of", dependencies=[_READ_ITS_RUNS])
def show_dag_run(
    request: Request,
    source: Source,
    dag_id: Annotated[str, Value(min_length=1, max_length=1000)],
    run_id: Annotated[str, Value(min_length=1, max_length=1000)],
    part: Literal["live"] | None = None,
) -> Response:
    """Return the page for the tab of a DAG run in Airflow. If the lake does not have the run, the page waits for it."""
    try:
        run = settings.load().run(dag_id, run_id)
        run = located(run, source.lake.earlier_run(run_id), source.store)
        run = source.run(run.folder)
    except (InputError, HTTPException):
        live = {"seconds": WAIT_SECONDS, "source": f"?{urlencode({'dag_id': dag_id, 'run_id': run_id})}"}
        return respond(request, "waiting.html", live=live)
    query = urlencode({"dag_id": dag_id, "run_id": run_id, "part": "live"})
    return _page_of(request, source, run, part, query)


@router.get("/runs/show/{folder:path}")
def show_run(request: Request, source: Source, folder: str, part: Literal["live"] | None = None) -> Response:
    """Return the page of a run. With `part`, return only the part of it that changes while the run is in progress."""
    return _page_of(request, source, source.run(folder), part, "part=live")


def _page_of(request: Request, source: LakeReader, run: Run, part: str | None, query: str) -> Response:
    report, fresh_seconds = source.report(run)
    seconds = RUN_SECONDS.get(report.summary.status)
    values = shown(report) | {
        "links": _links(run, source),
        "live": {"seconds": seconds and max(seconds, fresh_seconds), "source": f"?{query}"},
    }
    if part:
        return respond(request, "live.html", **values)
    box = {"reason": sampling.why_unavailable(run, source), "folder": quote(run.folder)}
    return respond(request, "run.html", box=box, **values)


def _links(run: Run, source: LakeReader) -> list[tuple[str, str]]:
    """Return links to a run's files and its clusters' logs, as pairs of a label and an address below ``/lake/``."""
    here = f"runs/{quote(run.folder)}/"
    found = [("all files", here)]
    for label, uri_of in _FILES.items():
        if source.store.exists(uri := uri_of(run)):
            found.append((label, f"{here}{quote(relative_name(uri, run.uri))}"))
    for record in ClusterRecords(run, source.store).read([]):
        if record.cluster_id and is_plain(record.cluster_id):
            found.append((f"logs of {record.cluster_id}", f"logs/{quote(record.cluster_id)}/"))
    return found
