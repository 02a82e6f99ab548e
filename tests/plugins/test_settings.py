import pytest

from jobs.errors import InputError
from jobs.lake.uri import local_path
from nightjar import settings


def test_defaults_lie_in_the_project():
    chosen = settings.load({})
    assert local_path(chosen.lake.uri) == settings.PROJECT_ROOT / "lake"
    assert (chosen.project, chosen.corpus, chosen.schedule, chosen.poll_seconds) == ("lab", None, None, 30.0)
    assert chosen.stats_dir == settings.PROJECT_ROOT / "stats"
    assert (chosen.package_root / "jobs").is_dir()


def test_the_environment_chooses(tmp_path):
    chosen = settings.load(
        {
            "NIGHTJAR_LAKE": "s3://lakes/night",
            "NIGHTJAR_PROJECT": "prod",
            "NIGHTJAR_SCHEDULE": "0 2 * * *",
            "NIGHTJAR_POLL_SECONDS": "0.5",
            "NIGHTJAR_CORPUS": " ",
            "NIGHTJAR_STATS_DIR": str(tmp_path),
        }
    )
    assert (
        chosen.run("manual__2026-01-01T00:00:00+00:00").uri == "s3://lakes/night/runs/manual__2026-01-01T00-00-00-00-00"
    )
    assert (chosen.project, chosen.schedule, chosen.poll_seconds) == ("prod", "0 2 * * *", 0.5)
    assert chosen.corpus is None
    assert chosen.stats_dir == tmp_path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAKE", "gs://x/y"),
        ("PROJECT", "a b"),
        ("POLL_SECONDS", "soon"),
        ("POLL_SECONDS", "0"),
        ("POLL_SECONDS", "nan"),
    ],
)
def test_a_wrong_value_is_named(name, value):
    with pytest.raises(InputError, match=f"NIGHTJAR_{name}"):
        settings.load({f"NIGHTJAR_{name}": value})


def test_a_deployment_chooses_its_cluster():
    environ = {
        "NIGHTJAR_CLUSTER_SERVICE_ROLE": "nightjar-service",
        "NIGHTJAR_CLUSTER_SUBNET_IDS": '["subnet-1"]',
        "NIGHTJAR_CLUSTER_OWNER": " ",
    }
    chosen = settings.load(environ).cluster
    assert chosen == {"cluster.service_role": "nightjar-service", "cluster.subnet_ids": ["subnet-1"]}
