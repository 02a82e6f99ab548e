"""GGUF files, read back by the package gguf."""

import json

import numpy as np
import pytest
from gguf import GGUFReader
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import models, pre_tokenizers

from jobs.errors import InputError
from jobs.model_io.gguf import tensor_names, to_gguf
from jobs.tokenizer.definition import END_OF_TEXT
from jobs.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def reader(model_and_tokenizer_untrained, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    path.write_bytes(to_gguf(*model_and_tokenizer_untrained, "a model"))
    return GGUFReader(path)


def reordered(rows, head_size):
    """Return llama.cpp's rows of queries or keys in the order of Hugging Face."""
    return rows.reshape(-1, head_size // 2, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def test_the_tensors_are_equal(model_and_tokenizer_untrained, reader):
    model, _ = model_and_tokenizer_untrained
    names = tensor_names(model.config)
    assert {tensor.name for tensor in reader.tensors} == set(names)
    assert set(names.values()) == set(model.state_dict())
    for tensor in reader.tensors:
        expected = model.state_dict()[names[tensor.name]].numpy()
        found = np.asarray(tensor.data)
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            assert not np.array_equal(found, expected)
            found = reordered(found, model.config.head_size)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)


def test_the_tokenizer_is_equal(model_and_tokenizer_untrained, reader):
    _, tokenizer = model_and_tokenizer_untrained
    values = json.loads(tokenizer.json)
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    vocab = {token: index for index, token in enumerate(fields["tokenizer.ggml.tokens"])}
    assert vocab == values["model"]["vocab"] | {END_OF_TEXT: tokenizer.end_of_text}
    assert fields["tokenizer.ggml.merges"] == [" ".join(pair) for pair in values["model"]["merges"]]
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.end_of_text
    assert fields["tokenizer.ggml.token_type"].count(3) == 1
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")


def test_the_configuration_is_equal(model_and_tokenizer_untrained, reader):
    config = model_and_tokenizer_untrained[0].config
    found = {name.removeprefix("llama."): field.contents() for name, field in reader.fields.items()}
    assert found["general.architecture"] == "llama"
    assert found["attention.head_count_kv"] == config.num_kv_heads
    assert found["context_length"] == config.num_positions
    assert found["rope.freq_base"] == config.rope_theta
    assert found["attention.layer_norm_rms_epsilon"] == pytest.approx(config.norm_epsilon)


def test_two_exports_are_equal(model_and_tokenizer_untrained):
    assert to_gguf(*model_and_tokenizer_untrained, "x") == to_gguf(*model_and_tokenizer_untrained, "x")


def test_another_kind_of_tokenizer_is_rejected(model_and_tokenizer_untrained):
    other = HuggingFaceTokenizer.from_str(model_and_tokenizer_untrained[1].json.decode())
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer = Tokenizer(model_and_tokenizer_untrained[1].json)
    tokenizer.json = other.to_str().encode()
    assert isinstance(other.model, models.BPE)
    with pytest.raises(InputError, match="only byte-level BPE"):
        to_gguf(model_and_tokenizer_untrained[0], tokenizer, "x")
