"""A run is fitted to its cluster before one exists."""

import pytest

from infra.aws.plan import plan
from jobs.config import resolve
from jobs.config.releases import DEFAULT_RELEASE, RELEASES
from jobs.config.sections.cluster import ClusterConfig
from jobs.errors import InputError
from nightjar import packaging
from nightjar.tasks.placement import place


def config(**settings):
    return resolve("s3://lakes/text", "tiny", {key.replace("__", "."): value for key, value in settings.items()})


def test_sizes_are_written_into_the_configuration():
    spark = place(config()).spark
    assert (spark.executors, spark.executor_cores, spark.executor_overhead) == (2, 4, "8768m")
    assert place(place(config())) == place(config())


def test_what_the_nodes_cannot_hold_is_refused_before_a_cluster_exists():
    with pytest.raises(InputError, match=r"an executor takes .* has 11,712 MB for containers"):
        place(config(spark__executor_memory="20g", spark__executor_overhead="20g"))
    with pytest.raises(InputError, match=r"spark\.executors \(40\) do not fit"):
        plan("s3://lakes/x", "s3://lakes/t", "tiny", {"spark.executors": 40, "spark.executor_memory": "4g"})


def test_a_cluster_with_gpus_asks_for_them():
    gpus = {"cluster__core_instance_types": ["g5.xlarge"]}
    assert place(config(**gpus)).train.device == "cuda"
    assert place(config(**gpus, train__device="cpu")).train.device == "cpu"
    assert place(config()).train.device == "auto"


def test_what_is_not_known_is_said(caplog):
    place(config(cluster__release_label="emr-7.14.0", cluster__core_instance_types=["c7i.2xlarge"]))
    first, second = [record.getMessage() for record in caplog.records]
    assert "emr-7.14.0 is not in the compatibility table (emr-spark-8.0.0, emr-spark-8.1.0)" in first
    assert "memory of c7i.2xlarge for Spark was not measured; it is computed by a rule" in second


def test_the_nodes_environment_fits_every_release():
    python = ".".join(map(str, packaging.PYTHON_VERSION))
    cuda = packaging.TORCH_CUDA.removeprefix("cu")
    for release in RELEASES.values():
        assert python == release.python[0]
        assert release.cuda.split(".")[0] == cuda[:-1]
    assert ClusterConfig().release_label == DEFAULT_RELEASE == "emr-spark-8.0.0"
