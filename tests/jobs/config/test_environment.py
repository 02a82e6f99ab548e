"""Settings of a run from environment variables."""

import pytest

from jobs.config import environment_settings, flat_schema, parse_settings, resolve, variable_name
from jobs.errors import InputError


def test_a_variable_is_a_dotted_key():
    environ = {
        "NIGHTJAR_TRAIN_BATCH_SIZE": "64",
        "NIGHTJAR_CLUSTER_SUBNET_IDS": '["subnet-1"]',
        "NIGHTJAR_CLUSTER_OWNER": "ann",
        "NIGHTJAR_LOG_LEVEL": "DEBUG",
        "NIGHTJAR_CLUSTER_WHEELHOUSE": " ",
        "NIGHTJAR_LAKE": "s3://lakes/night",
        "PATH": "/bin",
    }
    assert environment_settings(environ) == {
        "train.batch_size": 64,
        "cluster.subnet_ids": ["subnet-1"],
        "cluster.owner": "ann",
        "log_level": "DEBUG",
    }


def test_every_key_has_a_variable_of_its_own():
    keys = list(flat_schema())
    assert len({variable_name(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("NIGHTJAR_TRAIN_BATCHSIZE", "; did you mean NIGHTJAR_TRAIN_BATCH_SIZE?"),
        ("NIGHTJAR_MODEL_XYZ123QQQQQQQQQQQQQ", ""),
    ],
)
def test_an_unknown_variable_of_a_section_is_refused(name, hint):
    with pytest.raises(InputError) as caught:
        environment_settings({name: "1"})
    assert str(caught.value) == f"{name}: this variable does not belong to a setting{hint}"


def test_the_environment_wins_over_the_preset_and_loses_to_settings():
    environment = environment_settings({"NIGHTJAR_WINDOWS_SIZE": "32", "NIGHTJAR_TRAIN_SEED": "7"})
    config = resolve("a.txt", "tiny", {**environment, **parse_settings(["train.seed=8"])})
    assert resolve("a.txt", "tiny").windows.size == 64
    assert (config.windows.size, config.train.seed) == (32, 8)
