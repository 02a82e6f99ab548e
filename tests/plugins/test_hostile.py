"""Hostile names through the form, the run id and the DAG's id: nothing is written outside of the run's folder."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.config import flat_schema, of_run, resolve
from jobs.errors import InputError, NightjarError
from jobs.lake.layout import Lake, Run
from jobs.sources.inputs import check_inputs
from nightjar import form
from nightjar.aws import store
from nightjar.emr import requests
from nightjar.pipelines import PipelineConfig
from nightjar.settings import Settings
from tests.support.hostile import NAMES

many = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONFIG = resolve("file:///text", "tiny")
TYPES = {key: str(schema["type"]) for key, schema in flat_schema().items() if not {"enum", "const"} & set(schema)}
LISTS = {key for key, kind in TYPES.items() if "array" in kind and "items" in flat_schema()[key]}
FREE_FIELDS = ["corpus", *sorted(key for key, kind in TYPES.items() if "string" in kind or key in LISTS)]
"""The fields of the form that take any text."""
FILES = ("corpus", "generate.prompts_file", "tokenize.tokenizer", "train.embeddings", "train.init")
"""Those that name files and models."""


def check_files(folder, lake):
    for path in folder.rglob("*"):
        assert path.is_relative_to(lake) or lake.is_relative_to(path)
        if path.is_file():
            project, _pipeline, _run, *inner = path.relative_to(lake / "runs").parts
            assert project == "lab"
            assert inner in (["owner.json"], ["config.json"], ["progress", "train.json"])
            path.unlink()


@given(NAMES, NAMES)
@many
def test_ids_of_airflow_stay_in_the_folder_of_runs(tmp_path, run_id, dag_id):
    lake = tmp_path / "deep" / "er" / "my lake"
    with suppress(InputError):
        run = Settings(lake=str(lake)).run(dag_id, run_id)
        of_run.claim(run, CONFIG, store())
        store().write_json(run.progress("train"), {})
        assert Run.of_config(run.config) == run
        assert (run.run_id, run.project) == (run_id, "lab")
    check_files(tmp_path, lake)


@given(st.sampled_from(FILES) | st.sampled_from(FREE_FIELDS), NAMES)
@many
@pytest.mark.usefixtures("aws")
def test_what_a_field_of_the_form_names_is_only_read(tmp_path, field, name):
    lake = tmp_path / "deep" / "er" / "my lake"
    run = Settings(lake=str(lake)).run("train_llm", "r")
    given = {"corpus": "/text.txt", "preset": "tiny", field: [name] if field in LISTS else name}
    with suppress(NightjarError):  # any other error is a traceback for the user
        config = form.read_form(given, PipelineConfig("default"))
        requests.add_step("j-1", "train", config, run, "s3://b/packages/1")
        requests.run_job_flow(config, requests.ClusterIdentity(run), datetime.now(UTC), "s3://b/packages/1")
        assert of_run.claim(run, config, store()) == config
        assert of_run.read_config(run, store()) == config
        check_inputs(config, Lake(run.lake_uri), store())
    check_files(tmp_path, lake)
