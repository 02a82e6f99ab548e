"""A sample of the random inputs of ``make fuzz``, and the judge of their results."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from jobs.errors import InputError
from tests.fuzz.registry import Case, case_ids, families, make_case
from tests.fuzz.runner import half_written, judge, run_cases
from tests.support.waiting import PATIENCE_SECONDS

NUM_CASES = 105

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.long]


def test_random_inputs_give_no_traceback():
    summary = run_cases(case_ids(seed=1, num_cases=NUM_CASES))
    assert summary.bad == []
    assert set(summary.by_family) == set(families())
    assert summary.counts["done"] > NUM_CASES / 10
    assert summary.counts["refused"] > NUM_CASES / 10


def test_a_case_depends_on_its_id_alone(tmp_path):
    """Cases are made in a process of their own: some families fork, which a process with threads must not."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        made = []
        for number in range(2):
            made.append(process.submit(describe_all, tmp_path / "cases").result(timeout=PATIENCE_SECONDS))
            (tmp_path / "cases").rename(tmp_path / f"cases-{number}")
    assert made[0] == made[1]
    assert made[0].keys() == families().keys()


def describe_all(folder):
    return {name: describe(f"3:{name}:5", folder / name) for name in families()}


def describe(case_id, folder):
    folder.mkdir(parents=True)
    return make_case(case_id, folder).description, contents(folder)


def contents(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_the_judge(tmp_path):
    def case(action):
        return judge("0:x:0", Case("", action, tmp_path), limit_seconds=0.2).result

    def leave():
        (tmp_path / "datasets/tokens/abc").mkdir(parents=True)
        (tmp_path / "datasets/tokens/abc/shard").touch()
        raise InputError("one line")

    assert case(lambda: None) == "done"
    assert case(lambda: 1 / 0) == "traceback"
    assert case(raising("one line")) == "refused"
    assert case(raising("two\nlines")) == case(raising("\udc80")) == case(raising("")) == "message"
    assert case(lambda: [None for _ in iter(int, 1)]) == "hang"
    assert case(leave) == "half-written"
    assert half_written(tmp_path) == ["datasets/tokens/abc/shard"]
    (tmp_path / "datasets/tokens/abc/_manifest.json").touch()
    assert half_written(tmp_path) == []


def raising(message):
    def action():
        raise InputError(message)

    return action


def test_a_crash_is_one_bad_case(tmp_path, monkeypatch):
    """The worker dies at a case that ends the process; the others run in another worker."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(":")]))
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nimport random\n"
        "class Random(random.Random):\n"
        "    def __init__(self, seed=None):\n"
        "        os._exit(9) if seed == '0:prompts:1' else super().__init__(seed)\n"
        "random.Random = Random\n"
    )
    summary = run_cases(case_ids(0, 3, "prompts"))
    assert [(verdict.case_id, verdict.result) for verdict in summary.bad] == [("0:prompts:1", "crash")]
    assert sum(summary.counts.values()) == 3
