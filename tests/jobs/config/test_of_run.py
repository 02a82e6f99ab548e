"""The owner, the configuration and the deployment of a run in the lake, on a local disk and on S3."""

import json

import pytest

from jobs.config import Config, of_run, resolve
from jobs.config.sections.promotion import PromotionConfig
from jobs.errors import DamagedError, InputError
from jobs.lake import store
from jobs.lake.layout import Lake


@pytest.fixture(params=["file", "s3"])
def run(request, tmp_path):
    lake = Lake(tmp_path.as_uri() if request.param == "file" else request.getfixturevalue("s3_uri"))
    return lake.run("exp:1", "nightly")


def config(**settings):
    return resolve("file:///text", "tiny", {key.replace("__", "."): value for key, value in settings.items()})


def test_the_first_start_writes_owner_and_configuration(run):
    chosen = config(train__seed=7)
    assert of_run.claim(run, chosen) == chosen
    assert store.read_bytes(run.config).decode() == chosen.to_json()
    owner = store.read_json(run.owner)
    assert owner.pop("config_sha256") == of_run.Owner.of(run, config(train__seed=7, spark__executors=9)).config_sha256
    assert owner == {"project": "lab", "pipeline": "nightly", "run_id": "exp:1"}
    assert of_run.claim(run, chosen) == of_run.read_config(run) == chosen


def test_a_name_that_was_cut_is_whole_in_its_owners_file(run):
    long = Lake(run.lake_uri).run("x" * 500)
    of_run.claim(long, config())
    assert store.read_json(long.owner)["run_id"] == "x" * 500
    other = Lake(run.lake_uri).run("x" * 501)
    assert of_run.claim(other, config(train__seed=7)).train.seed == 7  # another folder


@pytest.mark.parametrize("name", ["project", "pipeline", "run_id"])
def test_another_owner_is_refused_in_one_line_that_names_it(run, name):
    of_run.claim(run, config())
    owner = store.read_json(run.owner)
    store.write_json(run.owner, owner | {name: "of others"})
    with pytest.raises(
        InputError, match=r"belongs to run .*'of others'.*not to run 'exp:1'.*NIGHTJAR_PROJECT"
    ) as caught:
        of_run.claim(run, config())
    assert "\n" not in str(caught.value)
    assert store.read_json(run.owner)[name] == "of others"


def test_another_configuration_is_another_owner(run):
    of_run.claim(run, config())
    with pytest.raises(
        InputError, match=r"another configuration \(train.seed is 1234 there, 7 here\); choose another run id"
    ):
        of_run.claim(run, config(train__seed=7))
    assert of_run.read_config(run) == config()


def test_settings_that_the_version_of_the_run_did_not_know_are_not_compared(run):
    """A preset may choose another value than the default, which a run of that version has."""
    of_run.claim(run, config())
    written = store.read_json(run.config)
    del written["promotion"], written["train"]["seed"]
    store.write_json(run.config, written)
    again = of_run.claim(run, config(promotion__least_gain=0.1, train__seed=7))
    assert (again.promotion, again.train) == (PromotionConfig(), config().train)
    with pytest.raises(InputError, match=r"another configuration \(windows\.size is \d+ there, 16 here\)"):
        of_run.claim(run, config(windows__size=16))


def test_a_start_that_was_killed_before_the_configuration_goes_on(run):
    of_run.claim(run, config())
    store.delete_file(run.config)
    with pytest.raises(InputError, match="another configuration; choose"):
        of_run.claim(run, config(train__seed=7))
    assert of_run.claim(run, config()) == config()
    assert store.exists(run.config)


def test_the_settings_of_the_deployment_are_read_anew(run):
    of_run.claim(run, config(cluster__subnet_ids=["subnet-1"], train__seed=7))
    after = of_run.claim(run, config(cluster__subnet_ids=["subnet-2"], spark__executors=3, train__seed=7))
    assert (after.cluster.subnet_ids, after.spark.executors, after.train.seed) == (("subnet-2",), 3, 7)
    assert after.chosen == ("cluster.subnet_ids", "spark.executors", "train.seed")
    assert of_run.read_config(run) == after
    assert store.read_json(run.config)["cluster"]["subnet_ids"] == ["subnet-1"]
    assert store.read_json(run.deployment(1))["cluster"]["subnet_ids"] == ["subnet-2"]
    of_run.claim(run, after)
    assert not store.exists(run.deployment(2))  # nothing has changed
    back = of_run.renew(run, config(cluster__subnet_ids=["subnet-1"], train__seed=7))
    assert of_run.read_config(run) == back == config(cluster__subnet_ids=["subnet-1"], train__seed=7)
    assert store.read_json(run.deployment(2))["spark"]["executors"] == back.spark.executors


def test_a_renewal_keeps_all_other_settings(run):
    of_run.claim(run, config(train__seed=7))
    after = of_run.claim(run, config(train__seed=7, train__device="cpu", log_level="DEBUG"))
    assert (after.train.seed, after.train.device, after.log_level) == (7, "cpu", "DEBUG")
    after = of_run.renew(run, config(train__seed=8, log_level="DEBUG"))
    assert (after.train.seed, after.train.device) == (7, "auto")


def test_a_deployment_that_does_not_fit_the_run_is_refused(run):
    of_run.claim(run, config(train__workers=2, spark__executors=2))
    message = r"do not fit the run's other settings: train\.workers \(2\) must be at most"
    with pytest.raises(InputError, match=message) as caught:
        of_run.renew(run, config(spark__executors=1, spark__executor_cores=1, train__workers=1))
    assert "\n" not in str(caught.value)
    assert not store.exists(run.deployment(1))


def test_two_renewals_at_once_are_both_kept(run, monkeypatch):
    of_run.claim(run, config())
    publish = store.ENVIRONMENT.publish

    def be_slower(uri, data):
        monkeypatch.setattr(store.ENVIRONMENT, "publish", publish)
        of_run.renew(run, config(spark__executors=5))
        return publish(uri, data)

    monkeypatch.setattr(store.ENVIRONMENT, "publish", be_slower)
    assert of_run.renew(run, config(spark__executors=6)).spark.executors == 6
    assert [store.read_json(run.deployment(number))["spark"]["executors"] for number in (1, 2)] == [5, 6]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"project": "lab"}', b"\xff"])
def test_damage_is_named(run, content):
    of_run.claim(run, config())
    store.write_bytes(run.deployment(1), content)
    with pytest.raises(DamagedError, match=r"deployment-1\.json: not what Nightjar writes"):
        of_run.read_config(run)
    store.write_bytes(run.owner, content)
    with pytest.raises(DamagedError, match=r"owner\.json: not what Nightjar writes"):
        of_run.claim(run, config())


def test_a_run_of_the_earlier_layout_has_no_owner(run):
    earlier = Lake(run.lake_uri).earlier_run("exp-1")
    of_run.claim(earlier, config())
    assert not store.exists(earlier.owner)
    assert json.loads(store.read_bytes(earlier.config)) == json.loads(config().to_json())
    assert isinstance(of_run.read_config(earlier), Config)
    with pytest.raises(InputError, match="another configuration"):
        of_run.claim(earlier, config(train__seed=7))


def test_a_deployment_that_was_written_before_there_were_budgets_is_read(run):
    of_run.claim(run, config())
    of_run.renew(run, config(cluster__core_instances=3))
    written = store.read_json(run.deployment(1))
    del written["budget"]
    store.write_json(run.deployment(1), written)
    assert of_run.read_config(run).cluster.core_instances == 3
    assert of_run.read_config(run).budget.usd is None
