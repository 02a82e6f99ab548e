"""Runs of `train_llm` that use a model instead of training one, without Airflow's servers and without a JVM."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from infra.airflow.environment import PROJECT_ROOT
from jobs.lake.champion import promote_by_hand, read_champion
from jobs.lake.layout import Lake, Pipeline
from jobs.lake.uri import join
from jobs.model_io.folder import save_model
from nightjar import turns
from nightjar.aws import store
from tests.support import airflow
from tests.support.models import untrained_model
from tests.support.no_spark import no_spark
from tests.support.real_job import CONF, poems

pytestmark = [pytest.mark.airflow, pytest.mark.long]


@pytest.fixture(scope="module")
def emr(tmp_path_factory):
    """An embedded EMR whose steps need no Spark."""
    folder = tmp_path_factory.mktemp("emr")
    with airflow.emr_process(folder, no_spark(folder / "no-spark", "--engine inline")) as running:
        yield running


def test_a_run_that_only_generates_has_one_step_and_takes_no_turn(headless, emr, tmp_path):
    lake = (tmp_path / "lake").as_uri()
    model, variables = join(lake, "mine"), {"NIGHTJAR_PIPELINES": str(tmp_path)}
    save_model(model, *untrained_model())
    (tmp_path / "default.toml").write_text('[pipeline]\nskip_unchanged = "all"\n')
    other = Lake(lake).run("n-1", "default", "elsewhere")
    assert turns.take(other, "train_llm", timedelta(days=1), store(), lambda turn: False) is None
    conf = {"corpus": None, "use.model": model, "train.seed": 7}
    first, again = headless(lake, conf, **variables), headless(lake, conf, **variables)  # it is never left out
    for done in (first, again):
        assert done.code == 0, done.log[-3000:]
        assert emr.steps(done.run.run_id) == [("generate", "COMPLETED")]
        assert emr.clusters(done.run.run_id) == ["TERMINATED"]
        assert "train.seed=7 has no effect: it acts only with use.model unset" in done.log
        assert "Waiting for" not in done.log
        assert f"nightjar runs show {done.run.folder} --lake" in done.log  # the next command
    pipeline = Pipeline.of(first.run)
    assert not store().exists(pipeline.champion)
    assert not store().exists(pipeline.last)
    assert turns.read_turn(pipeline, store())[0].run == other.folder


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"use.model": "champion"}, "preflight: use.model: "),
        ({"use.model": "nobody", "use.task": "evaluate"}, "preflight: use.model: nobody: no model found"),
        (
            {"use.model": "x", "use.task": "evaluate", "corpus": None},
            "preflight: corpus: no text to evaluate the model",
        ),
        ({"corpus": None}, "preflight: corpus: no text to train on"),
    ],
)
def test_a_mistake_is_one_line_and_creates_no_cluster(headless, emr, tmp_path, conf, message):
    done = headless((tmp_path / "lake").as_uri(), conf)
    assert done.code == 2
    assert any(line.startswith(message) for line in done.log.splitlines()), done.log[-2000:]
    assert emr.clusters(done.run.run_id) == []


def test_a_step_that_fails_fails_the_run_and_ends_the_cluster(headless, emr, tmp_path):
    lake = (tmp_path / "lake").as_uri()
    save_model(join(lake, "mine"), *untrained_model())
    conf = {"use.model": join(lake, "mine"), "use.task": "evaluate", "spark.app_name": "fail:evaluate"}
    done = headless(lake, conf)
    assert done.code == 1
    assert emr.steps(done.run.run_id) == [("evaluate", "FAILED"), ("evaluate", "FAILED")]
    assert emr.clusters(done.run.run_id) == ["TERMINATED"]
    assert done.log.splitlines()[-1].startswith("verdict: evaluate is failed; promote is upstream_failed")


@pytest.mark.timeout(1800)
def test_the_champion_is_evaluated_and_generates_without_another_training(headless, emr, tmp_path):
    lake, text, other = (tmp_path / "my läke").as_uri(), tmp_path / "poems.txt", tmp_path / "other.jsonl"
    text.write_bytes(poems())
    other.write_text("".join(json.dumps({"verse": line}) + "\n" for line in poems().decode().split("\n\n")[:40]))
    trained = headless(lake, {**CONF, "corpus": str(text), "train.epochs": 1}, PROJECT_ROOT)
    assert trained.code == 0, trained.log[-3000:]
    promote_by_hand(trained.run, Pipeline.of(trained.run), "test", "one epoch is too little for the gate", {}, store())
    champion, version = read_champion(Pipeline.of(trained.run))
    use = {"use.model": "champion"}
    evaluated = headless(
        lake, {**use, "use.task": "evaluate", "corpus": str(other), "tokenize.field": "verse"}, PROJECT_ROOT
    )
    generated = headless(
        lake, {**use, "corpus": None, "generate.prompts": ["some say", "in fire"], "generate.num_samples": 2},
        PROJECT_ROOT,
    )  # fmt: skip
    for done, step in ((evaluated, "evaluate"), (generated, "generate")):
        assert done.code == 0, done.log[-3000:]
        assert emr.steps(done.run.run_id) == [(step, "COMPLETED")]
        assert store().read_json(done.run.used)["uri"] == champion.model_uri
        stats = read(done, "stats.json")
        assert (list(stats["steps"]), stats["used_model"]) == ([step], "champion")
        assert (
            "Model, used without training: champion" in Path(done.stats_dir, done.run.folder, "report.html").read_text()
        )
        assert "used_model  champion" in done.log  # of what pull_stats returns
        assert store().read_json(done.run.estimate)["corpus_bytes"] == (
            0 if step == "generate" else other.stat().st_size
        )
    assert 0 < read(evaluated, "stats.json")["text_bits_per_byte"] < 8
    assert read(evaluated, "stats.json")["num_documents"] == 40
    assert len(store().read_bytes(generated.run.samples).splitlines()) == 4
    assert read_champion(Pipeline.of(trained.run)) == (champion, version)


def read(done, name):
    return json.loads(Path(done.stats_dir, done.run.folder, name).read_text())
