"""The model folder and its zip file: writing, reading, and damaged files."""

import io
import json
import struct
import zipfile
from hashlib import sha256

import pytest
import torch
from tokenizers import Tokenizer as HuggingFaceTokenizer

from jobs.errors import DamagedError, InputError, NightjarError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.manifest import FileEntry, Manifest
from jobs.lake.models import find_model
from jobs.model_io.archive import pack
from jobs.model_io.folder import (
    load_model,
    model_contents,
    parse_model,
    read_contents,
    save_model,
)
from jobs.tokenizer.tokenizer import Tokenizer
from tests.support.foreign import TEXT, make

ABOUT = {"README.md": "# Käfer\n".encode(), "training_stats.json": b"{}\n"}
HUGGING_FACE = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                "special_tokens_map.json", "generation_config.json"}  # fmt: skip


@pytest.fixture
def contents(model_and_tokenizer_untrained):
    return model_contents(*model_and_tokenizer_untrained, ABOUT)


def changed(contents, name, change):
    """Return contents with one altered file and a matching manifest, like a folder that was written by hand."""
    files = {key: data for key, data in contents.items() if key != "_manifest.json"}
    files[name] = change(files[name])
    files = {key: data for key, data in files.items() if data is not None}
    entries = tuple(FileEntry(key, len(data), sha256(data).hexdigest()) for key, data in files.items())
    return {**files, "_manifest.json": Manifest("model", "x", entries).to_json()}


def test_a_folder_has_all_files_and_is_loaded_unchanged(model_and_tokenizer_untrained, tmp_path):
    model, tokenizer = model_and_tokenizer_untrained
    save_model(tmp_path.as_uri(), model, tokenizer, ABOUT)
    assert {path.name for path in tmp_path.iterdir()} == HUGGING_FACE | set(ABOUT) | {"_manifest.json"}
    again, _ = load_model(tmp_path.as_uri())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_exporting_again_changes_no_byte(contents, tmp_path):
    uri = tmp_path.as_uri()
    store.write_bytes(f"{uri}/first.zip", pack(contents))
    store.write_folder(f"{uri}/folder", read_contents(f"{uri}/first.zip"))
    store.write_bytes(f"{uri}/second.zip", pack(read_contents(f"{uri}/folder")))
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    (tmp_path / "second.zip").rename(tmp_path / "second.ZIP")
    assert find_model(str(tmp_path / "second.ZIP"), Lake(uri)) == f"{uri}/second.ZIP"
    model, tokenizer = load_model(f"{uri}/second.ZIP")
    assert model_contents(model, tokenizer, ABOUT) == contents


def test_a_zip_file_depends_only_on_the_content(contents):
    backwards = dict(reversed(contents.items()))
    assert pack(contents) == pack(backwards)
    with zipfile.ZipFile(io.BytesIO(pack(contents))) as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def with_config(**values):
    return lambda data: json.dumps(json.loads(data) | values).encode()


def without_a_tensor(data):
    """Rename a tensor in the header to a name of the same length."""
    return data.replace(b"model.norm.weight", b"model.mine.weight")


def of_integers(data):
    """Change the type in the header to another one of the same size."""
    (size,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + size].replace(b"F32", b"I32")
    return data[:8] + header + data[8 + size :]


def huge_header(data):
    return struct.pack("<Q", 1 << 60) + data[8:]


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("model.safetensors", lambda _: None, DamagedError, "does not list model.safetensors"),
        ("model.safetensors", lambda data: data[:-9], DamagedError, "model.safetensors: not a safetensors file"),
        ("model.safetensors", huge_header, DamagedError, "model.safetensors: not a safetensors file"),
        ("model.safetensors", lambda _: b"", DamagedError, "model.safetensors: not a safetensors file"),
        ("model.safetensors", without_a_tensor, DamagedError, "model.mine.weight does not belong to the model"),
        ("model.safetensors", of_integers, DamagedError, "holds torch.int32, not floating point numbers"),
        ("config.json", with_config(num_hidden_layers=3), DamagedError, r"layers\.2\..* is missing"),
        (
            "config.json",
            with_config(intermediate_size=65),
            DamagedError,
            "has .*64 values, but config.json requires .*65",
        ),
        (
            "config.json",
            with_config(hidden_size=32.5),
            DamagedError,
            "config.json: hidden_size: input should be a valid integer",
        ),
        ("config.json", with_config(vocab_size=10**15), DamagedError, "config.json: not the configuration"),
        (
            "config.json",
            with_config(num_key_value_heads=3),
            DamagedError,
            r"config.json: model.num_kv_heads \(3\) must",
        ),
        ("config.json", with_config(architectures=["GPT2LMHeadModel"]), InputError, "GPT2LMHeadModel"),
        ("config.json", with_config(rope_scaling={"type": "linear"}), InputError, "rope_scaling"),
        ("config.json", with_config(tie_word_embeddings=False), InputError, "tie_word_embeddings is False"),
        ("config.json", with_config(head_dim=8), InputError, "head_dim is 8"),
        ("config.json", with_config(vocab_size=None), DamagedError, "config.json: not the configuration"),
        ("config.json", lambda _: b"[", DamagedError, "config.json: not the configuration"),
        ("config.json", lambda _: b"[" * 5000, DamagedError, "config.json: not the configuration"),
        ("config.json", lambda _: b"\xff", DamagedError, "config.json: not the configuration"),
        ("tokenizer.json", lambda _: b"{}", InputError, "tokenizer.json: not a tokenizer.json"),
    ],
)
def test_a_wrong_model_is_rejected_in_one_line(contents, tmp_path, name, change, error, message):
    store.write_folder(tmp_path.as_uri(), changed(contents, name, change))
    store.write_bytes(tmp_path.as_uri() + ".zip", pack(changed(contents, name, change)))
    for uri in (tmp_path.as_uri(), tmp_path.as_uri() + ".zip"):
        with pytest.raises(error, match=message) as caught:
            load_model(uri)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == error.exit_code


def test_a_truncated_file_is_rejected(contents, tmp_path):
    store.write_folder(tmp_path.as_uri(), contents)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DamagedError, match=r"model\.safetensors: has 1000 bytes, the manifest says"):
        load_model(tmp_path.as_uri())


def test_without_a_manifest_there_is_no_model(contents, tmp_path):
    store.write_folder(tmp_path.as_uri(), contents)
    (tmp_path / "_manifest.json").unlink()
    with pytest.raises(InputError, match="no model here"):
        load_model(tmp_path.as_uri())


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"format_version": 1}', b'{"files": [{"name": 3}]}', b"\xff"])
def test_an_invalid_manifest_is_rejected(contents, tmp_path, manifest):
    store.write_folder(tmp_path.as_uri(), contents | {"_manifest.json": manifest})
    with pytest.raises(DamagedError, match="not a manifest"):
        load_model(tmp_path.as_uri())


def zip_of(files, compression=zipfile.ZIP_STORED):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return sink.getvalue()


@pytest.mark.parametrize("name", ["../config.json", "/etc/x", "a/b", "..", "a\\b", "c:x", ".hidden"])
def test_names_other_than_plain_file_names_are_rejected(contents, tmp_path, name):
    (tmp_path / "m.zip").write_bytes(zip_of(contents | {name: b"x"}))
    with pytest.raises(DamagedError, match="plain file names"):
        load_model((tmp_path / "m.zip").as_uri())
    assert [path.name for path in tmp_path.iterdir()] == ["m.zip"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda contents: b"", "not a readable zip file"),
        (lambda contents: pack(contents)[:-30], "not a readable zip file"),
        (lambda contents: pack(contents)[: len(pack(contents)) // 2], "not a readable zip file"),
        (lambda contents: zip_of({"config.json": b"{}"}), "no _manifest.json"),
        (lambda contents: zip_of({"_manifest.json": b"x" * 2**21}, zipfile.ZIP_DEFLATED), "no _manifest.json"),
        (lambda contents: zip_of({**contents, "config.json": b"{}"}), "has 2 bytes of config.json"),
        (lambda contents: zip_of({k: v for k, v in contents.items() if k != "config.json"}), "has no config.json"),
        (
            lambda contents: pack(contents).replace(b"num_hidden_layers", b"num_hidden_levels"),
            "not a readable zip file",
        ),
    ],
    ids=["empty", "cut short", "half", "no manifest", "bomb", "wrong size", "missing", "altered"],
)
def test_a_damaged_zip_file_is_rejected(contents, tmp_path, data, message):
    (tmp_path / "m.zip").write_bytes(data(contents))
    with pytest.raises(NightjarError, match=message) as caught:
        load_model((tmp_path / "m.zip").as_uri())
    assert "\n" not in str(caught.value)


def test_a_compressed_zip_file_is_read(contents, tmp_path):
    (tmp_path / "m.zip").write_bytes(zip_of(contents, zipfile.ZIP_DEFLATED))
    model, _ = load_model((tmp_path / "m.zip").as_uri())
    assert model.num_parameters == parse_model(contents, "x")[0].num_parameters


def test_the_tokenizer_of_a_folder_has_no_call_time_settings(model_and_tokenizer_untrained):
    """Otherwise the ids of `transformers` would differ from those that the model was trained on."""
    given = make("call-time settings")
    contents = model_contents(model_and_tokenizer_untrained[0], Tokenizer(given), {})
    exported = HuggingFaceTokenizer.from_str(contents["tokenizer.json"].decode())
    assert len(HuggingFaceTokenizer.from_str(given.decode()).encode(TEXT).ids) == 20
    assert exported.encode(TEXT).ids == Tokenizer(given).encode(TEXT).tolist()
    assert len(exported.encode(TEXT).ids) > 500
