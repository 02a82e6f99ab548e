"""The list of runs: order, filters, pages, what is read again, and 1,000 runs on a disk and on S3."""

import os
import sys
import time
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from jobs.lake import store
from jobs.lake.champion import Change, change_champion, format_champion
from jobs.lake.layout import Lake
from jobs.lake.lock import locked
from jobs.lake.store import Store, environment_client
from jobs.lake.strict_json import to_json
from jobs.lake.uri import join, local_path
from jobs.prices.metering import ClusterUse, InstanceSpan, StepSpan
from jobs.results import SortKey
from jobs.results.catalog import Catalog, Query
from jobs.results.summary import Status, Summary, read_summary, record_failure
from jobs.results.table import cells
from tests.support.results import configure, finish

CONFIG = to_json({"corpus": "file:///texts", "preset": "tiny", "train": {"embeddings": "random"}}, "config")
STEPS = ("tokenize", "windows", "train", "generate")


@pytest.fixture(params=["file", "s3"])
def lake(request, tmp_path):
    return Lake((tmp_path / "lake").as_uri() if request.param == "file" else request.getfixturevalue("s3_uri"))


def make(lake, number, pipeline="nightly", error=None):
    """Write a finished run in few files: the newest has the highest number and the lowest loss."""
    run = lake.run(f"run-{number:04d}", pipeline)
    step = {"error": None, "seconds": 5.0, "started": 1_700_000_000.0 + number}
    steps = dict.fromkeys(STEPS, step) | ({"train": {**step, "error": error}} if error else {})
    stats = {
        "valid_loss": 9 - number / 500, "unigram_loss": 7.0, "num_parameters": 10, "bits_per_byte": 3 - number / 1000,
        "seconds": dict.fromkeys(STEPS, 5.0), "steps": steps,
    }  # fmt: skip
    store.write_bytes(run.config, CONFIG)
    store.write_bytes(join(run.stats, "stats.json"), to_json(stats, "stats"))
    return run


def ids(page):
    return [each.run_id for each in page.runs]


def test_a_page_is_sorted_filtered_and_counted(lake, tmp_path):
    for number in range(5):
        make(lake, number, error="out of memory" if number == 3 else None)
    configure(lake.run("waits", "weekly"))
    catalog = Catalog(lake, file=tmp_path / "runs.json")
    assert ids(catalog.page(Query(limit=3))) == ["waits", "run-0004", "run-0003"]
    page = catalog.page(Query(offset=3, limit=2))
    assert (ids(page), page.total) == (["run-0002", "run-0001"], 6)
    by_loss = catalog.page(Query(sort="valid_loss", descending=False))
    assert ids(by_loss) == ["run-0004", "run-0003", "run-0002", "run-0001", "run-0000", "waits"]
    assert ids(catalog.page(Query(statuses=frozenset({Status.FAILED})))) == ["run-0003"]
    assert ids(catalog.page(Query(search="MEMORY nightly"))) == ["run-0003"]
    assert ids(catalog.page(Query(search="weekly"))) == ["waits"]
    failed = catalog.page(Query(statuses=frozenset({Status.FAILED}))).runs[0]
    assert failed.cause == "train: out of memory"


def test_the_columns_to_sort_by_are_fields_and_can_be_compared(lake):
    keys = get_args(SortKey)
    assert [key for key in keys if not hasattr(Summary, key)] == []
    finish(lake.run("r", "one"))
    make(lake, 1)
    for key in keys:
        assert Catalog(lake, file=None).page(Query(sort=key)).total == 2


def write_cluster(run, number, **values):
    """Write the record of a cluster as the tasks that ask for clusters and end them do."""
    record = {"number": number, "asked": "2026-11-26T02:00:00+00:00", "cluster_id": f"j-{number}", **values}
    store.write_bytes(join(run.clusters, f"{number:04d}.json"), to_json(record, "record"))


def test_the_time_of_instances_is_known_when_the_clusters_have_ended(lake, tmp_path):
    runs = [make(lake, number) for number in range(3)]
    write_cluster(runs[0], 1, ended=True, instance_seconds={"m6i.xlarge on demand": 5400.0, "g5.xlarge spot": 60.0})
    write_cluster(runs[0], 2, ended=True, instance_seconds={"m6i.xlarge on demand": 600.0})
    write_cluster(runs[1], 1)
    catalog = Catalog(lake, file=tmp_path / "runs.json")
    by_time = Query(sort="instance_seconds")
    assert [(each.run_id, each.instance_seconds) for each in catalog.page(by_time).runs] == [
        ("run-0000", 6060.0),
        ("run-0001", None),
        ("run-0002", None),
    ]
    write_cluster(runs[1], 1, ended=True, instance_seconds={"m6i.xlarge on demand": 7000.5})
    page = Catalog(lake, file=tmp_path / "runs.json").page(by_time)
    assert ids(page) == ["run-0001", "run-0000", "run-0002"]
    assert dict(page.runs[1].instances) == {"m6i.xlarge on demand": 6000.0, "g5.xlarge spot": 60.0}


def test_the_cost_of_runs_sorts_them_and_its_note_says_what_is_not_known(lake, tmp_path):
    runs = [make(lake, number) for number in range(3)]
    for run, rates in zip(runs, ({"m6i.xlarge spot": 0.1}, {"m6i.xlarge spot": 0.2}, {}), strict=True):
        span = InstanceSpan("m6i.xlarge", "spot", 0.0, 7200.0)
        steps = (StepSpan("train", 600.0, 4200.0),)
        used = ClusterUse("eu-west-1", 40.0, (span,), steps, rates, ("m6i.xlarge spot",))
        write_cluster(run, 1, ended=True, used=asdict(used), instance_seconds={"m6i.xlarge spot": 7200.0})
    for page in (Catalog(lake, file=tmp_path / "runs.json").page(Query(sort="cost_usd")) for _ in range(2)):
        found = [(each.run_id, each.cost_usd) for each in page.runs]
        assert found == [("run-0001", pytest.approx(0.4)), ("run-0000", pytest.approx(0.2)), ("run-0002", None)]
        assert page.runs[0].cost_note == "an upper bound, since a spot price is not known"
        assert "run nightjar prices" in page.runs[2].cost_note
        train = next(step for step in page.runs[0].steps if step.name == "train")
        assert (train.instance_seconds, train.cost_usd) == (3600.0, pytest.approx(0.2))
        assert [cells(each)["cost_usd"] for each in page.runs] == ["0.4 USD", "0.2 USD", "-"]


def test_the_instances_of_a_run_in_progress_count_from_when_they_were_asked_for(lake):
    run = lake.run("live", "nightly")
    configure(run, cluster={"core_instances": 3, "task_instances": 1})
    asked = datetime.now(UTC) - timedelta(hours=1)
    write_cluster(run, 1, asked=asked.isoformat(), ended=True, instance_seconds={"m6i.xlarge on demand": 100.0})
    write_cluster(run, 2, asked=asked.isoformat())
    write_cluster(run, 3, asked=asked.isoformat(), borrowed=True)
    write_cluster(run, 4, asked="yesterday")
    assert read_summary(run, is_over=True).instance_seconds == 100.0
    between_two_steps = read_summary(run)
    with locked(run):
        for each in (between_two_steps, read_summary(run)):
            assert each.instance_seconds == pytest.approx(100 + 5 * 3600, abs=300)


def ago(seconds):
    """Return the time this many seconds ago, in the ISO format of cluster records."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_a_run_of_a_dag_runs_from_its_first_task_to_its_last_and_its_duration_only_grows(lake):
    run, seen = lake.run("night", "nightly"), []

    def look():
        found = read_summary(run)
        seen.append((found.status, found.seconds))

    configure(run)
    look()  # it waits for its cluster
    write_cluster(run, 1, asked=ago(0))
    look()
    for number, name in enumerate(STEPS[:-1]):
        step = {"error": None, "seconds": 0.01, "started": time.time()}
        with locked(run):
            look()
        ended = STEPS[: number + 1]
        stats = {"seconds": dict.fromkeys(ended, 0.01), "steps": dict.fromkeys(ended, step)}
        store.write_bytes(join(run.stats, "stats.json"), to_json(stats, name))
        look()  # the step has ended, and the next one has not begun
    assert {status for status, _ in seen} == {Status.RUNNING}
    seconds = [each for _, each in seen]
    assert seconds == sorted(seconds)
    write_cluster(run, 1, asked=ago(0), ended=True)
    look()
    assert seen[-1] == (Status.UNFINISHED, pytest.approx(0.03))


@pytest.mark.parametrize(
    ("records", "minutes", "status"),
    [
        ([], 1, "running"),
        ([], 6, "unfinished"),
        ([{}], 50, "running"),
        ([{}], 70, "unfinished"),
        ([{"ended": True}], 1, "unfinished"),
        ([{"ended": True, "dropped": True}], 1, "running"),  # its tasks were cleared
        ([{"refused": "no capacity"}], 1, "running"),
        ([{"refused": "no capacity"}, {}], 50, "running"),
        ([{"borrowed": True}], 1, "running"),
        ([{"borrowed": True}], 6, "unfinished"),
        ([{"asked": "yesterday"}], 70, "unfinished"),
        ([{"asked": None}], 1, "running"),
    ],
)
def test_a_run_that_is_left_alone_is_unfinished(tmp_path, records, minutes, status):
    lake = Lake((tmp_path / "lake").as_uri())
    run, local = lake.run("night", "nightly"), lake.run("by-hand")
    for each in (run, local):
        configure(each)
        for number, values in enumerate(records, 1):
            write_cluster(each, number, **{"asked": ago(60 * minutes), **values})
        for file in local_path(each.uri).rglob("*.json"):
            os.utime(file, (time.time() - 60 * minutes,) * 2)
    assert read_summary(run).status == status
    assert read_summary(local).status == "unfinished"  # its process holds the lock from its first step to its last
    assert read_summary(run, is_over=True).status == "unfinished"


def test_a_failed_run_that_is_started_again_runs(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("night", "nightly")
    configure(run)
    write_cluster(run, 1, asked=ago(60))
    record_failure(run, "no capacity", store.ENVIRONMENT)
    assert (read_summary(run).status, read_summary(run).cause) == (Status.FAILED, "no capacity")
    write_cluster(run, 1, asked=ago(60), ended=True, dropped=True)
    write_cluster(run, 2, asked=ago(-1))
    assert (read_summary(run).status, read_summary(run).cause) == (Status.RUNNING, None)


def test_the_duration_of_a_run_in_progress_counts_from_its_start(lake):
    run = make(lake, 1, "local")
    stats = store.read_json(join(run.stats, "stats.json"))
    stats["steps"]["tokenize"] = {"error": None, "seconds": 5.0, "started": time.time() - 3600}
    stats["steps"]["train"] = {"error": None, "seconds": 5.0, "started": time.time() - 60}
    del stats["steps"]["windows"], stats["steps"]["generate"]
    store.write_bytes(join(run.stats, "stats.json"), to_json(stats, "stats"))
    with locked(run):
        assert read_summary(run).seconds == pytest.approx(3600, abs=60)
    assert read_summary(run).seconds == 20


def test_a_run_that_changes_is_read_again_and_one_that_is_gone_is_left_out(lake, tmp_path):
    run = make(lake, 1)
    catalog, other = Catalog(lake, file=tmp_path / "a"), Catalog(lake, file=tmp_path / "b")
    assert [each.status for each in catalog.page().runs] == ["done"] == [each.status for each in other.page().runs]
    make(lake, 1, error="lost")
    for each in (catalog, Catalog(lake, file=tmp_path / "b")):
        assert [(found.status, found.cause) for found in each.page().runs] == [("failed", "train: lost")]
    with locked(run):
        assert [found.status for found in catalog.page().runs] == ["running"]
    assert [found.status for found in catalog.page().runs] == ["failed"]
    store.delete_folder(run.uri)
    assert catalog.page().runs == ()


def test_a_filter_finds_a_run_that_has_ended_since(lake, tmp_path):
    make(lake, 1)
    configure(lake.run("run-0002", "nightly"))
    catalog, done = Catalog(lake, file=tmp_path / "a"), Query(statuses=frozenset({Status.DONE}))
    assert ids(catalog.page(done)) == ["run-0001"]
    make(lake, 2)
    assert ids(catalog.page(done)) == ["run-0002", "run-0001"]


def test_the_champion_is_marked(lake):
    finish(lake.run("run-0001", "weekly"))
    make(lake, 1)
    catalog = Catalog(lake, file=None)
    assert catalog.page().champions == ()
    store.write_bytes(lake.pipeline().champion, format_champion("a" * 64, "run-0001", {"bits_per_byte": 2.0452}))
    page = catalog.page()
    assert [(each.pipeline, page.is_champion(each)) for each in page.runs] == [("weekly", True), ("nightly", False)]
    nightly = lake.pipeline("nightly")
    run = lake.run("run-0001", "nightly").folder
    assert change_champion(nightly, None, "", Change("promoted", "b" * 64, run, "2026-11-26", "airflow: ann", "better"))
    page = catalog.page()
    assert [page.is_champion(each) for each in page.runs] == [True, True]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 1, "lake": 1, "runs": [1]}'])
def test_a_damaged_file_of_summaries_is_made_anew(tmp_path, content):
    lake = Lake((tmp_path / "lake").as_uri())
    make(lake, 1)
    file = tmp_path / "runs.json"
    file.write_bytes(content)
    assert ids(Catalog(lake, file=file).page()) == ["run-0001"]
    assert ids(Catalog(Lake(lake.uri), Store(fail), file=file).page()) == ["run-0001"]


def fail():
    raise AssertionError("a local lake needs no S3")


def test_without_a_lake_the_list_is_empty(tmp_path):
    assert Catalog(Lake((tmp_path / "none").as_uri()), file=None).page().runs == ()


def test_damaged_runs_are_listed(tmp_path):
    lake = Lake((tmp_path / "lake").as_uri())
    for number, content in enumerate(
        (
            b"",
            b"{",
            b"[]",
            b"\xff",
            b'{"steps": [], "seconds": 3, "valid_loss": "x"}',
            b'{"num_parameters": 1e999, "valid_loss": NaN, "seconds": {"a": 1e999}}',
        )
    ):
        run = lake.run(f"r{number}")
        store.write_bytes(run.config, content)
        store.write_bytes(join(run.stats, "stats.json"), content)
        store.write_bytes(run.lock, content)
        store.write_bytes(run.outcome("train", 1), content)
    assert {each.status for each in Catalog(lake, file=None).page().runs} == {Status.UNFINISHED}


@pytest.mark.long
@pytest.mark.slow
def test_a_page_of_many_runs_reads_few_files_after_the_first_time(lake, tmp_path):
    num_runs = 200 if lake.uri.startswith("s3") else 1000  # moto takes 0.1 s for a run
    for number in range(num_runs):
        make(lake, number)
    file = tmp_path / "runs.json"
    assert Catalog(lake, file=file).page().total == num_runs
    requests = []
    if lake.uri.startswith("s3"):
        environment_client().meta.events.register("before-send.s3", lambda **_: requests.append(1))
    for query in (Query(), Query(search="run-0", sort="valid_loss", offset=num_runs // 4)):
        page = Catalog(lake, file=file).page(query)  # as a new process does
        assert (page.total, len(page.runs)) == (num_runs, 50)
    environment_client.cache_clear()
    assert len(requests) <= 2 * (3 * 50 + 7)  # three files of each run on the page, folders, and champions
    assert file.stat().st_size < 2_000_000


def test_a_summary_is_small_however_long_its_texts_are(tmp_path):
    run = make(Lake((tmp_path / "lake").as_uri()), 1, error="x" * 100_000)
    store.write_bytes(run.config, to_json({"corpus": "\n".join(["file:///a"] * 10_000), "preset": "p" * 10_000}, "c"))
    summary = read_summary(run)
    assert sum(sys.getsizeof(getattr(summary, field.name)) for field in fields(summary)) < 4_000
    assert local_path(run.config).stat().st_size > 100_000
