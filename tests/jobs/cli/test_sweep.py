"""``nightjar sweep``: its combinations, its runs on this machine, and mistakes. Airflow's are in tests/dags."""

import pytest

from jobs.cli.main import main
from jobs.cli.sweep import combine
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import Lake

SMALL = ("train.max_tokens=20000", "windows.size=32", "generate.max_new_words=3", "tokenize.vocab_size=300")


@pytest.fixture
def sweep(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("The man starts with a question, and a river answers it.\n\n" * 300)

    def run(*words, code=0, corpus="text.txt"):
        place = ("--corpus", str(tmp_path / corpus)) if corpus else ()
        chosen = [word for setting in SMALL for word in ("--set", setting)]
        common = ("--lake", str(tmp_path / "lake"), "--preset", "tiny", "--name", "s")
        assert main(["sweep", *place, *common, *chosen, *words]) == code
        return capsys.readouterr()

    return run


def test_every_combination_is_there_once():
    found = combine(["train.seed=1,2", "train.optimizer=adamw, sgd", "model.hidden_sizes=[[64],[64,32]]"], 8)
    assert len(found) == 8
    assert found[0] == {"train.seed": 1, "train.optimizer": "adamw", "model.hidden_sizes": [64]}
    assert found[-1] == {"train.seed": 2, "train.optimizer": "sgd", "model.hidden_sizes": [64, 32]}


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["train.seed"], "--vary train.seed: write key=values"),
        (["train.sed=1"], "--vary train.sed: unknown key; did you mean train.seed?"),
        (["train.seed=1", "train.seed=2"], "--vary train.seed: named twice"),
        (["train.seed=1,2,3", "windows.seed=1,2,3"], "9 combinations are more than --most 8"),
        (["train.seed=[]"], "--vary train.seed: has no values"),
    ],
)
def test_wrong_lists_are_refused(vary, message):
    with pytest.raises(InputError, match=r"^--vary") as caught:
        combine(vary, 8)
    assert message in str(caught.value)


@pytest.mark.long
@pytest.mark.slow
def test_each_combination_is_a_run_and_the_same_name_goes_on(sweep, tmp_path, caplog):
    done = sweep("--vary", "train.learning_rate=0.001,0.003")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert rows[0] == ["run", "train.learning_rate", "state", "validation loss", "bits per byte"]
    assert [row[:3] for row in rows[1:]] == [["s-01", "0.001", "done"], ["s-02", "0.003", "done"]]
    assert all(float(number) > 0 for row in rows[1:] for number in row[3:])
    assert "runs compare --lake" in caplog.text
    runs = [Lake((tmp_path / "lake").as_uri()).run(f"s-0{number}") for number in (1, 2)]
    assert [store.read_json(run.config)["train"]["learning_rate"] for run in runs] == [0.001, 0.003]
    tokens = {store.read_json(run.datasets)["tokens"] for run in runs}
    assert len(tokens) == 1  # the corpus is tokenized once
    before = [store.info(run.model + "/model.safetensors") for run in runs]
    assert sweep("--vary", "train.learning_rate=0.001,0.003").out == done.out
    assert [store.info(run.model + "/model.safetensors") for run in runs] == before


@pytest.mark.long
@pytest.mark.slow
def test_models_are_compared_on_a_text(sweep):
    sweep("--vary", "train.seed=1,2")
    done = sweep("--vary", "use.model=local/s-01,local/s-02", "--set", "use.task=evaluate", "--name", "text")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[:4] for row in rows[1:]] == [
        ["text-01", '"local/s-01"', "done", "-"],
        ["text-02", '"local/s-02"', "done", "-"],
    ]
    assert all(float(row[4]) > 0 for row in rows[1:])


@pytest.mark.long
@pytest.mark.slow
def test_a_run_that_fails_does_not_keep_the_others_from_running(sweep, tmp_path):
    done = sweep("--vary", "train.learning_rate=0.001,1e9", "--set", "train.on_divergence=stop", code=1)
    assert "1 of 2 runs failed: s-02" in done.err.splitlines()[-1]
    assert [line.split("\t")[2] for line in done.out.splitlines()[1:]] == ["done", "failed"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--vary", "windows.size=32,0"), "windows.size=0: windows.size: input should be greater than"),
        (
            ("--vary", "train.seed=1", "--airflow", "airflow.example"),
            "--airflow airflow.example: not an http or https URL",
        ),
        (("--vary", "train.seed=1", "--airflow", "http://127.0.0.1:9"), "NIGHTJAR_AIRFLOW_USER: not set"),
    ],
)
def test_mistakes_start_no_run(sweep, tmp_path, monkeypatch, words, message):
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"NIGHTJAR_AIRFLOW_{name}", raising=False)
    done = sweep(*words, code=2)
    assert message in done.err.splitlines()[-1]
    assert done.out == ""
    assert not (tmp_path / "lake").exists()


def test_an_airflow_that_does_not_answer_is_named(sweep, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_AIRFLOW_TOKEN", "x")
    done = sweep("--vary", "train.seed=1", "--airflow", "http://127.0.0.1:9", code=1)
    assert "http://127.0.0.1:9/api/v2/dags/train_llm: no valid answer from Airflow" in done.err.splitlines()[-1]
