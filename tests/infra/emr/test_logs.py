"""The cause of a failure, as found in a step's logs."""

from pathlib import Path

import pytest

from infra.emr.logs import cause

SPARK = """WARNING: Using incubator modules: jdk.incubator.vector
26/11/22 00:32:35 WARN TaskSetManager: Lost task 0.3 in stage 0.0 (TID 3) (localhost executor driver): \
org.apache.spark.api.python.PythonException: Traceback (most recent call last):
ValueError: an attempt

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:581)
Driver stacktrace:
26/11/22 00:32:36 INFO ShutdownHookManager: Deleting directory /tmp/spark-1e506a5d
"""
DRIVER = """valid_loss 5.1
Traceback (most recent call last):
  File "app.py", line 5, in <module>
    sc.parallelize([1], 1).map(boom).collect()
py4j.protocol.Py4JJavaError: An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times
Caused by: org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "app.py", line 3, in boom
ValueError: no such shard: é

\tat java.base/java.lang.Thread.run(Thread.java:840)
\t... 1 more
"""


@pytest.mark.parametrize(
    ("stdout", "stderr", "status", "expected"),
    [
        (DRIVER, SPARK, 1, "exit status 1: ValueError: no such shard: é"),
        ("SomeError: retried\ncorpus.txt: no text in it\n", SPARK, 2, "exit status 2: corpus.txt: no text in it"),
        ("half done\n", SPARK, 143, "exit status 143: ValueError: an attempt"),
        ("half done\n", "cp: cannot stat 'x'\n", 1, "exit status 1: cp: cannot stat 'x'"),
        ("half done\n", "", 1, "exit status 1: half done"),
        ("", "", 137, "exit status 137"),
    ],
)
def test_cause_is_the_line_that_explains_the_failure(
    tmp_path: Path, stdout: str, stderr: str, status: int, expected: str
) -> None:
    (tmp_path / "stdout").write_text(stdout)
    (tmp_path / "stderr").write_text(stderr)
    assert cause(tmp_path, status) == expected
