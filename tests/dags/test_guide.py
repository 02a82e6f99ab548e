"""The examples in the guide of nightly runs are DAGs that Airflow takes and files that make pipelines."""

import importlib.util
import re
import textwrap

import pytest
from airflow.dag_processing.dagbag import DagBag

from infra.airflow.environment import PROJECT_ROOT
from nightjar import pipelines, settings

GUIDE = (PROJECT_ROOT / "docs" / "guides" / "nightly.md").read_text("utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", GUIDE, re.MULTILINE)]
DAGS = [block.strip() for block in BLOCKS if "import" in block]
FILES = [block.strip() for block in BLOCKS if "[pipeline" in block]


def test_the_dags_of_the_guide_start_runs(tmp_path):
    for number, block in enumerate(DAGS):
        (tmp_path / f"example_{number}.py").write_text(block)
    bag = DagBag(tmp_path)
    assert bag.import_errors == {}
    assert set(bag.dags) == {"fetch_poems", "watch_poems"}
    [outlet] = bag.dags["fetch_poems"].get_task("fetch").outlets
    assert outlet.name == "poems"
    assert bag.dags["watch_poems"].get_task("train").trigger_dag_id == "poems"


@pytest.mark.parametrize("block", FILES)
def test_the_files_of_the_guide_make_pipelines(tmp_path, monkeypatch, block):
    corpus = "" if block.startswith("corpus") else 'corpus = "s3://my-bucket/poems"\n'
    if importlib.util.find_spec("airflow.providers.slack") is None:
        tables = re.split(r"(?=\[\[)", block)
        block = "".join(table for table in tables if "slack" not in table)
    (tmp_path / "poems.toml").write_text(corpus + block)
    monkeypatch.setenv("NIGHTJAR_PIPELINES", str(tmp_path))
    assert pipelines.find("poems", settings.load()).wrong == ""


def test_every_key_of_a_pipelines_file_is_in_the_guide():
    assert len(FILES) == 3
    assert [key for key in pipelines.PipelineTable.model_fields if f"`{key}`" not in GUIDE] == []
