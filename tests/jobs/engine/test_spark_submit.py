"""What is given to spark-submit by hand wins over the settings of a run, as a real spark-submit shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.spark

PROGRAM = """
import json, sys
from jobs.config import SparkConfig
from jobs.engine.spark import SparkEngine
from jobs.errors import InputError

engine = SparkEngine(SparkConfig(app_name="ours", master=sys.argv[1] or None), sys.argv[1] or None)
conf = engine._context.getConf()
names = ("app.name", "master", "speculation", "serializer", "dynamicAllocation.enabled", "executor.memory",
         "shuffle.service.enabled", "executorEnv.AWS_REGION", "executorEnv.AWS_DEFAULT_REGION",
         "executor.memoryOverhead", "yarn.heterogeneousExecutors.enabled")
found = {name: conf.get(f"spark.{name}") for name in names}
found["doubled"] = engine.map(float, [1, 2], "numbers")
try:
    found["group"] = engine.run_worker_group(lambda context: context.world_size, 2, "group")
except InputError as error:
    found["group"] = str(error)
engine.stop()
print("FOUND", json.dumps(found))
"""


def submit(folder, *options, master=""):
    program = folder / "my program.py"
    program.write_text(PROGRAM)
    command = Path(pyspark.__path__[0]) / "bin" / "spark-submit"
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    arguments = [
        command,
        *options,
        "--conf",
        "spark.ui.enabled=false",
        program,
        master,
        "--conf",
        "spark.speculation=x",
    ]
    done = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stderr[-3000:]
    return json.loads(lines[0].removeprefix("FOUND "))


@pytest.mark.long
def test_options_given_by_hand_win(tmp_path):
    given = (
        "--master",
        "local[2]",
        "--name",
        "theirs",
        "--conf",
        "spark.executor.memory=777m",
        "--conf",
        "spark.speculation=true",
    )
    found = submit(tmp_path, *given, master="spark://nowhere:7077")
    assert (found["master"], found["app.name"], found["speculation"]) == ("local[2]", "theirs", "true")
    assert found["executor.memory"] == "777m"
    assert found["serializer"] == "org.apache.spark.serializer.KryoSerializer"
    assert found["dynamicAllocation.enabled"] == found["shuffle.service.enabled"] == "false"
    # The other settings for executors on a cluster stay: Spark alone would give 384 MB to their Python processes.
    assert (found["executor.memoryOverhead"], found["yarn.heterogeneousExecutors.enabled"]) == ("2g", "false")
    assert found["executorEnv.AWS_REGION"] == found["executorEnv.AWS_DEFAULT_REGION"] == "us-east-1"
    assert (found["doubled"], found["group"]) == ([1.0, 2.0], 2)


@pytest.mark.long
def test_a_file_of_properties_wins_and_options_win_over_it(tmp_path):
    file = tmp_path / "their own.conf"
    lines = ["spark.master local[2]", "spark.speculation=true", "# spark.serializer x", "spark.executor.memory: 1g"]
    file.write_text("\n".join(lines))
    given = ("--properties-file", file, "--conf", "spark.executor.memory=777m")
    found = submit(tmp_path, *given, master="spark://nowhere:7077")
    assert (found["master"], found["speculation"], found["executor.memory"]) == ("local[2]", "true", "777m")
    assert (found["app.name"], found["serializer"]) == ("ours", "org.apache.spark.serializer.KryoSerializer")
    assert (found["doubled"], found["group"]) == ([1.0, 2.0], 2)


@pytest.mark.long
def test_without_options_the_settings_of_the_run_hold(tmp_path):
    found = submit(tmp_path, "-c", "spark.dynamicAllocation.enabled=true", master="local[3]")
    assert (found["master"], found["app.name"], found["speculation"]) == ("local[3]", "ours", "false")
    assert found["group"].startswith("spark.dynamicAllocation.enabled=true: workers that train together need")
