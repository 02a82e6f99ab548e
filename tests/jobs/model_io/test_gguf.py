"""GGUF files, read back by the package gguf."""

import json

import numpy as np
import pytest
from gguf import GGUFReader, TokenType
from tokenizers import AddedToken
from tokenizers import Tokenizer as HuggingFaceTokenizer

from jobs.errors import InputError
from jobs.model.llama import Llama, LlamaConfig
from jobs.model_io.gguf import tensor_names, to_gguf
from jobs.tokenizer.definition import END_OF_TEXT
from jobs.tokenizer.tokenizer import Tokenizer
from tests.support.foreign import LLAMA_3, QWEN_2, SLOW, byte_level, edited, isolated, make


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


def export(json_bytes, path):
    """Export a model with this tokenizer; return the fields of the file that describe the tokenizer."""
    tokenizer = Tokenizer(json_bytes)
    shape = {"num_layers": 1, "embedding_size": 8, "hidden_size": 8, "num_heads": 1, "num_kv_heads": 1}
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, num_positions=4, rope_theta=1e4, norm_epsilon=1e-5, **shape
    )  # fmt: skip
    path.write_bytes(to_gguf(Llama(config), tokenizer, "x"))
    prefix = "tokenizer.ggml."
    fields = GGUFReader(path).fields.items()
    return {name.removeprefix(prefix): field.contents() for name, field in fields if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("name", "splitter"),
    [("GPT-2", "gpt-2"), ("added tokens", "gpt-2"), ("Llama 3", "dbrx"), ("ignore_merges", "llama-bpe"),
     ("Qwen 2 without NFC", "qwen2"), ("ids in another order", "gpt-2"), ("early version", "gpt-2")],
)  # fmt: skip
def test_llama_cpp_splits_text_by_the_rule_of_the_tokenizer(name, splitter, tmp_path):
    """Each of these gave the ids of `tokenizers` for 2,000 texts in llama.cpp."""
    given = byte_level(isolated(QWEN_2)).to_str().encode() if name == "Qwen 2 without NFC" else make(name)
    fields = export(given, tmp_path / "model.gguf")
    assert (fields["model"], fields["pre"], fields["add_bos_token"]) == ("gpt2", splitter, False)
    reference = HuggingFaceTokenizer.from_str(given.decode())
    assert {token: i for i, token in enumerate(fields["tokens"])} == reference.get_vocab(with_added_tokens=True)
    merges = json.loads(given)["model"]["merges"]
    assert fields["merges"] == [each if isinstance(each, str) else " ".join(each) for each in merges]


def test_a_byte_without_a_token_has_none_in_the_file(tmp_path):
    """Both `tokenizers` and llama.cpp leave out such a byte of a text: there is no token for what is unknown."""
    given = make("missing byte")
    fields = export(given, tmp_path / "model.gguf")
    reference = HuggingFaceTokenizer.from_str(given.decode())
    assert reference.encode("Ć").tokens == ["Ä"]  # of its bytes C4 86, the second one has no token
    kinds = zip(fields["tokens"], fields["token_type"], strict=True)
    written = {token: i for i, (token, kind) in enumerate(kinds) if kind != TokenType.UNUSED}
    assert written == reference.get_vocab(with_added_tokens=True)
    assert fields["pre"] == "gpt-2"
    assert "unknown_token_id" not in fields


def test_added_tokens_that_are_not_special_are_user_defined(tmp_path):
    """llama.cpp searches a text for special and user-defined tokens, and splits the others."""
    added = [AddedToken("<tool>"), AddedToken("a b\n"), AddedToken("<sys>", special=True)]
    tokenizer = byte_level(added=added)
    fields = export(tokenizer.to_str().encode(), tmp_path / "model.gguf")
    types = dict(zip(fields["tokens"], fields["token_type"], strict=True))
    expected = {END_OF_TEXT: TokenType.CONTROL, "<tool>": TokenType.USER_DEFINED, "a b\n": TokenType.USER_DEFINED,
                "<sys>": TokenType.CONTROL}  # fmt: skip
    assert {token: types[token] for token in expected} == expected
    assert {types[token] for token in types.keys() - expected.keys()} == {TokenType.NORMAL}


def test_ids_without_a_token_are_unused(tmp_path):
    fields = export(make("holes"), tmp_path / "model.gguf")
    unused = [
        token for token, kind in zip(fields["tokens"], fields["token_type"], strict=True) if kind == TokenType.UNUSED
    ]
    assert len(unused) == len(set(unused)) == 70


OVERLAPPING = byte_level(added=[AddedToken(text, normalized=False) for text in ("the", "here")]).to_str().encode()
OTHER_PATTERN = edited(byte_level(isolated(LLAMA_3)), lambda v: v["pre_tokenizer"]["pretokenizers"][0].update(
    pattern={"Regex": r"\S+|\s+"}))  # fmt: skip


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        *((name, None) for name in SLOW if name != "missing byte"),
        ("NFC", "its rules are NFC, ByteLevel"),
        ("Qwen 2", "its rules are NFC, Split, ByteLevel"),
        ("prefix space", "it puts a space before each text"),
        ("Llama 2", "its rules are Prepend, Replace"),
        ("Metaspace first", "its rules are Metaspace"),
        (
            edited(byte_level(), lambda v: v["model"].update(ignore_merges=True)),
            "its pattern is that of GPT-2, with ignore_merges=true",
        ),
        (OTHER_PATTERN, r"its pattern is \S+|\s+, with ignore_merges=false"),
        (OVERLAPPING, "its added tokens 'the' and 'here' overlap"),
    ],
)
def test_what_llama_cpp_does_not_apply_is_refused(given, reason, tmp_path):
    with pytest.raises(InputError) as caught:
        export(make(given) if isinstance(given, str) else given, tmp_path / "model.gguf")
    message = str(caught.value)
    assert message.startswith(f"GGUF: llama.cpp cannot apply this tokenizer ({reason or ''}")
    assert message.endswith("; export with --format folder or zip, or train with a tokenizer of tokenize.kind=bpe")
    assert "\n" not in message
    assert not (tmp_path / "model.gguf").exists()
