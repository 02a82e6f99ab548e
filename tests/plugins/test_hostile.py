"""Hostile names through the form, the run id and the DAG's id: nothing is written outside of the run's folder."""

from contextlib import suppress

from hypothesis import HealthCheck, given, settings

from jobs.config import of_run, resolve
from jobs.errors import InputError
from jobs.lake.layout import Run
from nightjar import form
from nightjar.aws import store
from nightjar.settings import Settings
from tests.support.hostile import NAMES

few = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONFIG = resolve("file:///text", "tiny")


def check_files(folder, lake):
    for path in folder.rglob("*"):
        assert path.is_relative_to(lake) or lake.is_relative_to(path)
        if path.is_file():
            project, _pipeline, _run, *inner = path.relative_to(lake / "runs").parts
            assert project == "lab"
            assert inner in (["owner.json"], ["config.json"], ["progress", "train.json"])
            path.unlink()


@given(NAMES, NAMES)
@settings(few, max_examples=300)
def test_ids_of_airflow_stay_in_the_folder_of_runs(tmp_path, run_id, dag_id):
    lake = tmp_path / "deep" / "er" / "my lake"
    with suppress(InputError):
        run = Settings(lake=str(lake)).run(dag_id, run_id)
        of_run.claim(run, CONFIG, store())
        store().write_json(run.progress("train"), {})
        assert Run.of_config(run.config) == run
        assert (run.run_id, run.project) == (run_id, "lab")
    check_files(tmp_path, lake)


@given(NAMES, NAMES)
@few
def test_a_corpus_and_a_file_of_the_form_are_only_named(tmp_path, corpus, prompts):
    lake = tmp_path / "deep" / "er" / "my lake"
    with suppress(InputError):
        given = {"corpus": corpus, "preset": "tiny", "generate.prompts_file": prompts}
        of_run.claim(Settings(lake=str(lake)).run("train_llm", "r"), form.read_form(given), store())
    check_files(tmp_path, lake)
