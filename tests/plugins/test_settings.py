"""The settings of a deployment, from environment variables."""

import pytest

from jobs.errors import InputError
from jobs.lake.uri import local_path
from nightjar import settings


@pytest.fixture
def load(monkeypatch):
    """Return a function that loads the settings from the given variables alone."""
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"NIGHTJAR_{name.upper()}", raising=False)

    def loaded(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"NIGHTJAR_{name}", value)
        return settings.load()

    return loaded


def test_defaults_are_in_the_project(load):
    loaded = load()
    assert local_path(loaded.lake.uri) == settings.PROJECT_ROOT / "lake"
    assert (loaded.project, loaded.corpus, loaded.schedule, loaded.poll_seconds) == ("lab", None, None, 30.0)
    assert loaded.stats_dir == settings.PROJECT_ROOT / "stats"
    assert (loaded.package_root / "jobs").is_dir()


def test_variables_override_the_defaults(load, tmp_path):
    loaded = load(
        LAKE="s3://lakes/night", PROJECT="prod", SCHEDULE="0 2 * * *", POLL_SECONDS="0.5", STATS_DIR=str(tmp_path)
    )
    assert loaded.lake.uri == "s3://lakes/night"
    assert loaded.run("train_llm", "r").uri == "s3://lakes/night/runs/prod/default/r"
    assert loaded.run("nightly", "r").uri == "s3://lakes/night/runs/prod/nightly/r"
    for name in ("default", "local"):
        with pytest.raises(InputError, match="reserved"):
            loaded.run(name, "r")
    assert (loaded.project, loaded.schedule, loaded.poll_seconds) == ("prod", "0 2 * * *", 0.5)
    assert loaded.stats_dir == tmp_path


@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_corpus_or_schedule_is_none(load, blank):
    loaded = load(CORPUS=blank, SCHEDULE=blank, PIPELINES=blank, LAKE="")
    assert (loaded.corpus, loaded.schedule, loaded.pipelines) == (None, None, None)
    assert local_path(loaded.lake.uri) == settings.PROJECT_ROOT / "lake"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LAKE", "gs://x/y", "gs://x/y: unknown scheme 'gs'"),
        ("PROJECT", "a b", "use at most 63 letters, digits.*, got 'a b'"),
        ("POLL_SECONDS", "soon", "valid number.*, got 'soon'"),
        ("POLL_SECONDS", "0", "greater than 0, got '0'"),
        ("POLL_SECONDS", "nan", "finite number, got 'nan'"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_variable(load, name, value, message):
    with pytest.raises(InputError, match=f"^NIGHTJAR_{name}: .*{message}") as caught:
        load(**{name: value})
    assert "\n" not in str(caught.value)


def test_every_setting_has_a_description():
    assert all(field.description for field in settings.Settings.model_fields.values())
