"""The checks of a run that uses a model, before a cluster is created."""

import json
import uuid

import pytest

from jobs.config import resolve
from jobs.errors import InputError
from jobs.lake.layout import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.uri import join
from jobs.model_io.archive import pack
from jobs.model_io.folder import model_contents
from nightjar.aws import store
from nightjar.tasks import preflight
from tests.support.models import untrained_model

pytestmark = pytest.mark.slow


def config(corpus, **settings):
    return resolve(corpus, "tiny", settings)


def save_model(uri):
    """Write a model folder, and return its contents."""
    contents = model_contents(*untrained_model(), {})
    store().write_folder(uri, contents)
    return contents


def use(**settings):
    return {f"use.{key}": value for key, value in settings.items()}


def test_a_model_to_use_must_be_there_whole_and_of_a_known_kind(put, lake_uri):
    for name, message in [
        ("champion", r"use\.model: .*champion\.json: no champion yet"),
        ("none", r"use\.model: none: no model found"),
        (put("a.zip", b"PK"), r"use\.model: .*a\.zip: not a readable zip file"),
    ]:
        with pytest.raises(InputError, match=message):
            preflight.check_files(config("c", **use(model=name)), Lake(lake_uri))
    model = join(lake_uri, "mine")
    contents = save_model(model)
    preflight.check_files(config("c", **use(model=model), **{"generate.dtype": "int8"}), Lake(lake_uri))
    preflight.check_files(config("c", **use(model=put("b.zip", pack(contents)))), Lake(lake_uri))
    preflight.check_files(
        config("c", **use(model=model, task="evaluate"), **{"generate.prompts_file": "none"}), Lake(lake_uri)
    )
    put("mine/model.safetensors", b"x")
    with pytest.raises(InputError, match=r"use\.model: .*has 1 bytes, the manifest says"):
        preflight.check_files(config("c", **use(model=model)), Lake(lake_uri))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "its architecture GPT2LMHeadModel is not supported; use one of Llama"),
        (
            {"architectures": ["NightjarContextMlp"]},
            r"generate\.dtype=int8 needs model\.kind=transformer, not context_mlp",
        ),
        (
            {"architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 40},
            r"generate\.dtype=int8 needs a model\.hidden_size that is a multiple of 16, not 40",
        ),
        ({"architectures": ["LlamaForCausalLM"], "hidden_size": 32}, "not the configuration of a model"),
        ([], "not the configuration of a model"),
    ],
)
def test_a_model_that_cannot_generate_as_asked_is_refused(tmp_path, stored, message):
    model = tmp_path.as_uri()
    data = {"config.json": json.dumps(stored).encode(), "model.safetensors": b"", "tokenizer.json": b""}
    entries = tuple(store().write_file(model, name, content) for name, content in data.items())
    store().publish_manifest(model, Manifest("model", "0", entries))
    with pytest.raises(InputError, match=message):
        preflight.check_files(config("c", **use(model=model), **{"generate.dtype": "int8"}), Lake(model))


def test_a_model_on_this_machine_is_refused_for_a_cluster_on_aws(tmp_path, aws):
    aws_url, lake = "https://elasticmapreduce.us-east-1.amazonaws.com", Lake(f"s3://lakes/{uuid.uuid4().hex}")
    save_model(tmp_path.as_uri())
    with pytest.raises(InputError, match=r"use\.model: a cluster on AWS cannot read file://"):
        preflight.check_reachable(config("", **use(model=str(tmp_path))), lake, aws_url)
    run = lake.run("one", "default")
    save_model(run.model)
    preflight.check_reachable(config("/texts", **use(model="default/one")), lake, aws_url)  # it reads no text


def test_a_run_that_uses_a_model_keeps_it_and_is_never_left_out(put, lake_uri, emr_at_home):
    lake = Lake(lake_uri)
    run, model = lake.run(f"run-{uuid.uuid4().hex[:8]}", "default"), join(lake_uri, "mine")
    save_model(model)
    prepared = preflight.prepare(config("", **use(model=model)), run, skips_unchanged=True)
    assert (prepared.config.steps, prepared.made_of, prepared.same_as) == (("generate",), {}, None)
    assert store().read_json(run.used)["uri"] == model
    assert store().read_json(run.estimate)["bound_instance_seconds"] == 3 * (3600 + 6 * 3600)
    short = put("short.txt", b"To be")  # of any length, since there are no windows
    preflight.prepare(config(short, **use(model=model, task="evaluate")), lake.run(f"e-{run.run_id}", "default"))
