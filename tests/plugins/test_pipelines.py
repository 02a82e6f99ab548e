"""The pipelines of a deployment: their files, their names, and when their runs start."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables import trigger
from airflow.timetables.base import DataInterval, TimeRestriction

from jobs.errors import InputError
from nightjar import pipelines, settings

NIGHTLY = '[pipeline]\nschedule = "0 2 * * *"\n'
POEMS = f'corpus = "s3://texts/poems"\npreset = "tiny"\ntrain.batch_size = 4\n{NIGHTLY}'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"NIGHTJAR_{name.upper()}", raising=False)
    path = tmp_path / "pipelines"
    path.mkdir()
    monkeypatch.setenv("NIGHTJAR_PIPELINES", str(path))
    return path


@pytest.fixture
def load(folder, tmp_path):
    """Write files, and return the pipelines by their names, and the mistakes."""
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "other.py").write_text('with DAG(\n    "other",\n):\n    pass\n\n@dag(dag_id="one_more")\n')

    def loaded(**files):
        for name, text in files.items():
            (folder / f"{name}.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        configs, mistakes = pipelines.load_all(settings.load(), dags)
        return {each.name: each for each in configs}, mistakes

    return loaded


def test_each_file_is_a_pipeline_and_there_is_always_the_default_one(load):
    found, mistakes = load(poems=POEMS, plays='corpus = "/texts/plays"\n')
    assert mistakes == []
    assert {name: each.dag_id for name, each in found.items()} == {
        "default": "train_llm",
        "plays": "plays",
        "poems": "poems",
    }
    poems = found["poems"]
    assert (poems.corpus, poems.preset, poems.values) == ("s3://texts/poems", "tiny", {"train.batch_size": 4})
    assert (found["plays"].schedule(), found["default"].schedule()) == (None, None)
    assert pipelines.find("poems", settings.load()) == poems


def test_a_scheduled_pipeline_that_only_generates_needs_no_text(load):
    found, mistakes = load(poet=f'use.model = "champion:poems"\n{NIGHTLY}')
    assert (found["poet"].wrong, mistakes) == ("", [])


def test_without_a_folder_there_is_the_default_one_alone(load, monkeypatch):
    monkeypatch.delenv("NIGHTJAR_PIPELINES")
    found, mistakes = load(poems=POEMS)
    assert (list(found), mistakes) == (["default"], [])


def test_the_environment_configures_the_default_pipeline_alone_and_wins_over_its_file(load, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_CORPUS", "s3://texts/all")
    monkeypatch.setenv("NIGHTJAR_SCHEDULE", "30 4 * * *")
    found, _ = load(default='corpus = "/texts"\nwindows.size = 32\n[pipeline]\nmax_active_runs = 3\n', poems=POEMS)
    default = found["default"]
    assert (default.corpus, default.table.schedule) == ("s3://texts/all", "30 4 * * *")
    assert (default.values, default.table.max_active_runs) == ({"windows.size": 32}, 3)
    assert (found["poems"].corpus, found["poems"].table.schedule) == ("s3://texts/poems", "0 2 * * *")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[train]\nseed = {'9' * 5000}", "a number has more digits than can be read"),
        (f"preset = '{'x' * 5000}'", "does not exist; choose one of"),
        (f"[pipeline]\ntimezone = '{'x' * 5000}'", "not a time zone"),
        ('corpus = "\\u0000"', "is a relative path"),
        ("[train]\nseed = ?", "not TOML (invalid value (at line 2, column 8"),
        (b"\xff", "not UTF-8 at byte 0"),
        ("train.batchsize = 4", "train.batchsize: unknown key; did you mean train.batch_size?"),
        ("train.batch_size = 0", "train.batch_size: input should be greater than or equal to 1, got 0"),
        (
            "[train]\nworkers = 64\nbatch_size = 64\n[spark]\nexecutors = 2\nexecutor_cores = 1",
            "train.workers (64) must be at most",
        ),
        ('preset = "huge"', "preset 'huge' does not exist"),
        ("pipeline = 3", "pipeline: must be a table"),
        ("[pipeline]\nshedule = 1", "pipeline.shedule: unknown key; [pipeline] takes schedule, timezone"),
        ('[pipeline]\nschedule = "at two"', "pipeline.schedule: not a cron expression"),
        ('[pipeline]\nschedule = "0 0 30 2 *"', "pipeline.schedule: not a cron expression"),
        ('[pipeline]\ntimezone = "Berlin"', "pipeline.timezone: not a time zone"),
        ('[pipeline]\ntimezone = "../x"', "pipeline.timezone: not a time zone"),
        ("[pipeline]\nmax_active_runs = 0", "pipeline.max_active_runs: input should be greater than or equal to 1"),
        ("[pipeline]\nmax_active_runs = true", "pipeline.max_active_runs: input should be a valid integer"),
        ('[pipeline]\nassets = "a"', "pipeline.assets: input should be a valid tuple"),
        (NIGHTLY, "corpus: missing, but runs that start automatically need one"),
        (f'use = {{ model = "champion", task = "evaluate" }}\n{NIGHTLY}', "corpus: missing, but runs that start"),
        ('[pipeline]\nassets = ["new"]', "corpus: missing, but runs that start automatically need one"),
        ('corpus = "texts/poems"', "corpus: texts/poems is a relative path"),
    ],
)
def test_a_wrong_file_is_one_line_and_the_other_pipelines_are_there(load, folder, text, message):
    found, [mistake] = load(poems=POEMS, wrong=text)
    assert mistake.startswith(f"{folder}/wrong.toml: ")
    assert mistake.isprintable()
    assert len(mistake) < 1200
    assert message in mistake
    assert "\n" not in mistake
    assert found["wrong"].wrong == mistake
    with pytest.raises(InputError):
        found["wrong"].check()
    assert (found["poems"].wrong, found["default"].wrong) == ("", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local", "reserved (the pipeline of runs without Airflow)"),
        ("runs", "reserved"),
        ("train_llm", "reserved (the DAG of the pipeline default, whose file is default.toml)"),
        ("other", "the DAG 'other' exists already"),
        ("one_more", "the DAG 'one_more' exists already"),
        ("a b", "cannot be the id of a DAG"),
        ("-x", "cannot be the id of a DAG"),
        ("x" * 64, "cannot be the id of a DAG"),
    ],
)
def test_names_of_other_things_are_refused(load, folder, name, message):
    found, [mistake] = load(**{name: POEMS})
    assert mistake.startswith(f"{folder}/{name}.toml: ")
    assert message in mistake
    assert list(found) == ["default"]


def test_what_is_no_file_of_a_pipeline_is_left_alone(load, folder):
    (folder / "readme.md").write_text("x")
    (folder / ".hidden.toml").write_text("x = ")
    (folder / "folder.toml").mkdir()
    assert load() == ({"default": pipelines.PipelineConfig("default")}, [])


def test_the_ending_of_a_file_counts_in_either_case(load, folder):
    (folder / "POEMS.TOML").write_text(POEMS)
    (folder / "default.Toml").write_text("windows.size = 32\n")
    found, mistakes = load()
    assert (list(found), mistakes) == (["POEMS", "default"], [])
    assert (found["POEMS"].corpus, found["POEMS"].path) == ("s3://texts/poems", folder / "POEMS.TOML")
    assert found["default"].values == {"windows.size": 32}
    assert pipelines.find("POEMS", settings.load()) == found["POEMS"]


def test_two_files_of_one_pipeline_are_named(load, folder):
    (folder / "poems.TOML").write_text("corpus = 3")
    if (folder / "poems.toml").exists():
        pytest.skip("this file system takes both names for one file")
    found, mistakes = load(poems=POEMS)
    assert mistakes == [f"{folder}/poems.TOML: the pipeline 'poems' has a second file, poems.toml; rename one of them"]
    assert found["poems"].corpus == "s3://texts/poems"


def test_a_folder_that_is_not_there_is_named_and_the_default_pipeline_is_there(load, folder):
    folder.rmdir()
    found, mistakes = load()
    assert list(found) == ["default"]
    assert mistakes == [f"NIGHTJAR_PIPELINES: {folder} cannot be listed (No such file or directory)"]


def test_a_wrong_schedule_of_the_environment_is_named(load, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_SCHEDULE", "at two")
    found, [mistake] = load(poems=POEMS)
    assert mistake.startswith("NIGHTJAR_SCHEDULE: not a cron expression")
    assert found["default"].wrong == mistake


def test_a_wrong_variable_of_a_setting_is_not_the_files_mistake(load, monkeypatch):
    monkeypatch.setenv("NIGHTJAR_WINDOWS_SIZE", "many")
    assert load(poems=POEMS)[1] == []


@pytest.fixture
def scheduled(monkeypatch):
    """Return the times at which Airflow's scheduler starts a pipeline's runs: from `start` on, or after a last run."""

    def times(config, start, number, last=None):
        timetable = decode_timetable(encode_timetable(config.schedule()))
        restriction, now, found = TimeRestriction(None, None, catchup=False), datetime.fromisoformat(start), []
        for _ in range(number):
            monkeypatch.setattr(trigger, "utcnow", lambda now=now: now)
            interval = DataInterval(last, last) if last else None
            last = timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction).run_after
            found.append(last)
            now = max(now, last)
        return found

    return times


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 2 * * *", "0 3 * * *", "15 1 * * *"])
@pytest.mark.parametrize("day", ["2026-03-26", "2026-10-22"])
def test_each_day_has_one_night_where_summer_time_begins_and_ends(load, scheduled, cron, day):
    found, _ = load(poems=f'corpus = "s3://x/y"\n[pipeline]\nschedule = "{cron}"\ntimezone = "Europe/Berlin"\n')
    zone = ZoneInfo("Europe/Berlin")
    nights = [time.astimezone(zone) for time in scheduled(found["poems"], f"{day}T12:00:00+00:00", 7)]
    assert all(later.date() - earlier.date() == timedelta(days=1) for earlier, later in pairwise(nights))
    minute, hour, *_ = map(int, cron.split()[:2])
    skipped = [night for night in nights if (night.hour, night.minute) != (hour, minute)]
    assert len(skipped) <= 1  # 2:30 does not exist on one day; its run starts at 3:30
    assert all((night.month, night.day, night.hour) == (3, 29, hour + 1) for night in skipped)
    assert nights[0].utcoffset() != nights[-1].utcoffset()


def test_a_new_pipeline_waits_for_its_next_night(load, scheduled):
    """Airflow's default starts the last missed night at once if it has just passed."""
    found, _ = load(poems=POEMS)
    [first] = scheduled(found["poems"], "2026-11-26T02:00:20+00:00", 1)
    assert first == datetime(2026, 11, 27, 2, tzinfo=UTC)


def test_a_long_pause_is_followed_by_one_run(load, scheduled):
    found, _ = load(poems=POEMS)
    before = datetime(2026, 11, 1, 2, tzinfo=UTC)
    nights = scheduled(found["poems"], "2026-11-26T12:00:00+00:00", 2, last=before)
    assert nights == [datetime(2026, 11, 26, 2, tzinfo=UTC), datetime(2026, 11, 27, 2, tzinfo=UTC)]


def test_every_key_of_the_table_has_a_description():
    assert all(each.description for each in pipelines.PipelineTable.model_fields.values())
