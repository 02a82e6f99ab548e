"""The plan and the judge of ``make chaos-airflow``."""

from datetime import UTC, datetime, timedelta

from jobs.lake.identity import DEFAULT
from jobs.lake.layout import Lake
from jobs.lake.store import ENVIRONMENT
from tests.chaos_airflow.__main__ import DISTURBANCES, append, read_results, unfinished
from tests.chaos_airflow.judge import Result, most_at_once
from tests.chaos_airflow.plan import Call, calls_of, cases_of, sample
from tests.chaos_airflow.subjects import SUBJECTS

READ = Call("emr", "DescribeCluster", "client")
CREATE = Call("emr", "RunJobFlow", "client")
OF_STEP = Call("s3", "PutObject", "step")
GOOD = Result(
    case="a", disturbance="denied", struck=True, ended=True, green=True, continued=None, green_and_alive=False,
    alive=0, alive_after_reaper=0, clusters_at_once=1, steps_at_once=1, completed_twice=0, incomplete=0,
    cause="", seconds=1.0,
)  # fmt: skip


def test_calls_of_the_emulator_itself_and_of_other_services_are_not_disturbed():
    recorded = [
        {"service": "emr", "operation": "RunJobFlow", "caller": "client", "count": 2},
        {"service": "s3", "operation": "PutObject", "caller": "cluster", "count": 9},
        {"service": "sts", "operation": "GetCallerIdentity", "caller": "client", "count": 1},
    ]
    assert calls_of(recorded) == [CREATE]


def test_each_call_is_disturbed_in_each_way_that_it_can_be():
    cases = cases_of([READ, CREATE, OF_STEP], DISTURBANCES)
    by_call = {call: {case.disturbance for case in cases if case.call == call} for call in (READ, CREATE, OF_STEP)}
    assert by_call[CREATE] == set(DISTURBANCES)
    assert by_call[READ] == set(DISTURBANCES) - {"scheduler killed", "triggerer killed"}
    assert by_call[OF_STEP] == {"dropped-before", "dropped-after", "denied"}
    assert len({case.name for case in cases}) == len(cases)


def test_a_sample_has_every_disturbance_and_is_the_same_again():
    cases = cases_of([READ, CREATE, OF_STEP], DISTURBANCES)
    chosen = sample(cases, len(DISTURBANCES), seed=1)
    assert {case.disturbance for case in chosen} == set(DISTURBANCES)
    assert chosen == sample(cases, len(DISTURBANCES), seed=1) != sample(cases, len(DISTURBANCES), seed=2)
    assert sample(cases, 0, seed=1) == cases


def test_clusters_count_at_the_same_time_alone():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    spans = [(name, now + timedelta(seconds=a), now + timedelta(seconds=b)) for name, a, b in
             (("one", 0, 5), ("one", 1, 3), ("two", 5, 9))]  # fmt: skip
    assert most_at_once(spans) == 1
    assert most_at_once([*spans, ("three", now, now + timedelta(seconds=6))]) == 2
    assert most_at_once([]) == 0


def test_results_are_read_again_but_for_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "results.jsonl"
    append(path, vars(GOOD))
    with path.open("a") as file:
        file.write('{"case": "b", "dist')
    assert read_results(path) == {"a": GOOD}


def test_a_case_that_has_not_struck_is_run_again():
    cases = cases_of([CREATE], ["denied", "dropped-before", "dropped-after"])
    done = {
        case.name: Result(**vars(GOOD) | {"struck": struck})
        for case, struck in zip(cases[:2], (True, False), strict=True)
    }
    assert unfinished(cases, done) == cases[1:]


def test_the_plain_dag_does_the_same_steps_on_the_same_cluster(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("r", DEFAULT)
    given = SUBJECTS["plain"].prepare(run, str(tmp_path / "a.txt"), ENVIRONMENT)
    assert given["flow"]["Name"] == SUBJECTS["plain"].cluster_name(run)
    assert [step["Name"] for step in given["steps"]] == ["tokenize", "windows", "train", "generate"]
    assert all(run.config in step["HadoopJarStep"]["Args"] for step in given["steps"])
    assert ENVIRONMENT.exists(run.config)


def test_what_breaks_a_promise_is_bad():
    assert not GOOD.is_bad
    for broken in ("green_and_alive", "alive_after_reaper", "incomplete", "completed_twice"):
        assert Result(**vars(GOOD) | {broken: 1}).is_bad
    for most in ("clusters_at_once", "steps_at_once"):
        assert Result(**vars(GOOD) | {most: 2}).is_bad
    assert Result(**vars(GOOD) | {"ended": False}).is_bad
    assert Result(**vars(GOOD) | {"green": False, "continued": False}).is_bad
    assert not Result(**vars(GOOD) | {"green": False, "continued": True, "alive": 1}).is_bad
