"""What a training reports while it goes on, as the lists and pages of runs read it."""

from jobs.config import TrainConfig
from jobs.lake.layout import Lake
from jobs.lake.lock import locked
from jobs.results.summary import Status, read_summary
from jobs.training.metrics_writer import MetricsWriter
from jobs.training.schedule import Schedule
from tests.support.results import configure, training_row


def test_a_training_in_progress_is_seen_to_run(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("live", "default")
    configure(run)
    schedule = Schedule.of(TrainConfig(batch_size=4, epochs=1), num_windows=400, window_size=8)
    with locked(run):
        MetricsWriter(run, schedule).add(training_row(30, is_evaluated=False), {}, {})
        step = next(each for each in read_summary(run).steps if each.name == "train")
    assert step.status is Status.RUNNING
    assert step.progress.startswith("step 30/100 loss ")
