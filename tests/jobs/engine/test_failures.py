"""Errors of Spark in one line, from texts as Spark 4.0 on YARN wrote them."""

import pytest
from py4j.protocol import Py4JError

from jobs.engine.failures import innermost, start_error
from jobs.engine.lost_executors import job_error
from jobs.errors import InputError, MemoryLimitError, WorkerLostError

WRAPPED = "An error occurred while calling z:org.apache.spark.api.python.PythonRDD.collectAndServe.\n"
ABORTED = (
    ": org.apache.spark.SparkException: Job aborted due to stage failure: Could not recover from a failed barrier"
    " ResultStage. Most recent failure reason: Stage failed because barrier task ResultTask(0, 1) finished"
    " unsuccessfully.\n"
)
KILLED = (
    "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: Container killed by YARN for"
    " exceeding physical memory limits. 1.4 GB of 1 GB physical memory used. Consider boosting"
    " spark.executor.memoryOverhead.\n\tat org.apache.spark.scheduler.DAGScheduler.failJobAndIndependentStages\n"
)
REFUSED = (
    "An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.\n"
    ": java.lang.IllegalArgumentException: Required executor memory (20480 MB), overhead (20480 MB), and PySpark memory"
    " (0 MB) is above the max threshold (11712 MB) of this cluster! Please check the values.\n"
    "\tat org.apache.spark.deploy.yarn.Client.verifyClusterResources(Client.scala:347)\n"
)


def test_a_container_that_was_killed_is_named_with_the_setting():
    error = job_error(Py4JError(WRAPPED + ABORTED + KILLED), None)
    assert isinstance(error, MemoryLimitError)
    assert str(error).startswith("executor 1 was lost: Container killed by YARN for exceeding physical memory limits.")
    assert "raise spark.executor_overhead" in str(error)
    assert "\n" not in str(error)


def test_an_executor_that_was_lost_otherwise_may_be_tried_again():
    text = "ExecutorLostFailure (executor 2 exited unrelated to the running tasks) Reason: Container from a bad node"
    error = job_error(Py4JError(WRAPPED + ABORTED + text), None)
    assert type(error) is WorkerLostError
    assert str(error) == "executor 2 was lost: Container from a bad node"


def test_a_request_that_no_node_can_hold_is_the_users_mistake():
    error = start_error(Py4JError(REFUSED), "yarn")
    assert isinstance(error, InputError)
    assert str(error).startswith("Spark on yarn did not start: IllegalArgumentException: Required executor memory")
    assert "lower spark.executor_memory and spark.executor_overhead" in str(error)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            WRAPPED + ": org.apache.spark.SparkException: Exception thrown in awaitResult: \n\tat x.y(Z.scala:1)\n"
            "Caused by: java.io.IOException: Connection refused: node-1\n\tat x.y(Z.scala:2)\n",
            "IOException: Connection refused: node-1",
        ),
        (
            WRAPPED + ': java.io.IOException: Cannot run program "/opt/python": error=2, No such file or directory\n'
            "Caused by: java.io.IOException: error=2, No such file or directory\n\tat x.y(Z.scala:2)\n",
            'IOException: Cannot run program "/opt/python": error=2, No such file or directory',
        ),
        (
            WRAPPED + ABORTED + "org.apache.spark.api.python.PythonException: Traceback (most recent call last):\n"
            "  File x\nbuiltins.ValueError: 3 is no shard\n\n\tat org.apache.spark.Task\n",
            "ValueError: 3 is no shard",
        ),
        ("Answer from Java side is empty", "Answer from Java side is empty"),
    ],
)
def test_the_innermost_cause_is_the_line_that_people_read(text, found):
    assert innermost(Py4JError(text)) == found
