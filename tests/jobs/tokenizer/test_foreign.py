"""Tokenizers of other projects: ids and texts are those of Hugging Face `tokenizers` for the exported file."""

import json
from itertools import pairwise

import numpy as np
import pytest
import tokenizers

from jobs.errors import InputError
from jobs.tokenizer import encoders
from jobs.tokenizer.definition import END_OF_TEXT, Definition, find_overlap
from jobs.tokenizer.encoders import FastEncoder, fast_encoder
from jobs.tokenizer.tokenizer import Tokenizer
from tests.support import foreign
from tests.support.foreign import FAST, SLOW, byte_level, edited, make


def without_call_settings(json_bytes):
    values = json.loads(json_bytes)
    values |= {"truncation": None, "padding": None, "post_processor": None}
    values["model"].pop("dropout", None)
    return tokenizers.Tokenizer.from_str(json.dumps(values))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_ids_and_text_of_2000_texts(name):
    given = make(name)
    tokenizer = Tokenizer(given)
    exported = tokenizers.Tokenizer.from_str(tokenizer.json.decode())
    texts = foreign.texts(2000)
    ids, offsets = tokenizer.encode_batch([text.encode() for text in texts], parallel=True)
    found = [ids[start:end].tolist() for start, end in pairwise(offsets)]
    expected = [one.ids for one in exported.encode_batch_fast(texts)]
    assert found == expected
    assert expected == [one.ids for one in without_call_settings(given).encode_batch_fast(texts)]
    for one in expected[::10]:
        assert tokenizer.decode(one) == exported.decode(one, skip_special_tokens=False)
    assert tokenizer.vocab_size == 1 + max(exported.get_vocab().values())
    assert tokenizer.end_of_text == exported.token_to_id(END_OF_TEXT)
    assert (tokenizer.encode_batch([b""], parallel=False)[1] == [0, len(exported.encode("").ids)]).all()


@pytest.mark.parametrize("name", FAST)
def test_these_are_encoded_by_gigatoken(name):
    encoder, reason = fast_encoder(Definition.parse(make(name)))
    assert isinstance(encoder, FastEncoder), reason


@pytest.mark.parametrize("name", SLOW)
def test_these_are_not_encoded_by_gigatoken(name):
    remarks = Tokenizer(make(name)).remarks()
    assert len([each for each in remarks if "encoded by the library tokenizers" in each]) == 1


@pytest.mark.parametrize(
    "name",
    ["no pattern", "no pre-tokenizer", "whole words", "competing added tokens", "merge twice",
     "unreached words", "other id", "end of word", "normalized added tokens"],
)  # fmt: skip
def test_probe_texts_alone_show_that_ids_differ(name, monkeypatch):
    monkeypatch.setattr(encoders, "unsupported_part", lambda definition: "")
    assert fast_encoder(Definition.parse(make(name))) == (None, "gigatoken gives other ids for the probe texts")


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_a_long_text_has_the_ids_of_tokenizers_however_it_is_cut(name):
    """gigatoken cuts a long text for its threads: at words, marks, added tokens, in runs of one character."""
    tokenizer = Tokenizer(make(name))
    reference = tokenizers.Tokenizer.from_str(tokenizer.json.decode())
    text = (
        "".join(foreign.texts(3000, seed=1))
        + "e"
        + "\u0301" * 20_000
        + " " * 50_000
        + "ab" * 50_000
        + END_OF_TEXT * 999
    )
    expected = reference.encode(text).ids
    for parallel in (True, False):
        assert tokenizer.encode_batch([text.encode()], parallel)[0].tolist() == expected


def test_settings_of_calls_are_removed_and_named():
    tokenizer = Tokenizer(make("call-time settings"))
    values = json.loads(tokenizer.json)
    assert (values["truncation"], values["padding"], values["post_processor"]) == (None, None, None)
    (remark,) = tokenizer.remarks()
    assert remark.endswith("truncation, padding, post_processor")
    assert tokenizer.encode(foreign.TEXT).tolist() == without_call_settings(tokenizer.json).encode(foreign.TEXT).ids
    assert tokenizer.json == Tokenizer(tokenizer.json).json
    plain = make("GPT-2")
    assert Tokenizer(plain).json is plain
    assert Tokenizer(plain).remarks() == []


def test_dropout_does_not_draw():
    tokenizer = Tokenizer(make("dropout"))
    assert json.loads(tokenizer.json)["model"]["dropout"] is None
    assert tokenizer.encode("Holmes was there").tolist() == tokenizer.encode("Holmes was there").tolist()


def test_unknown_tokens():
    for name, unknown in (("Unigram", "<unk>"), ("WordPiece", "[UNK]"), ("words", "<unk>"), ("GPT-2", None)):
        tokenizer = Tokenizer(make(name))
        assert tokenizer.unknown_id == (
            None if unknown is None else tokenizer.definition.reference.token_to_id(unknown)
        )
        assert tokenizer.unknown("Holmes 漢") == ([] if unknown is None else ["漢"])
    assert Tokenizer(make("unknown is end of text")).unknown_id is None


def test_a_text_that_cannot_be_encoded():
    tokenizer = Tokenizer(
        edited(foreign.words(), lambda v: v["model"]["vocab"].pop("<unk>") and v["added_tokens"].pop(0))
    )
    assert tokenizer.remarks()[-1].startswith("it has no unknown token, so a text")
    assert tokenizer.encode("the").size == 1
    with pytest.raises(InputError, match=r"cannot encode \(.*UNK.*\); give its tokenizer.json an unknown token"):
        tokenizer.encode("the 漢")
    assert Tokenizer(make("missing byte")).remarks()[-1].startswith("it has no unknown token, so characters")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v["model"]["vocab"].update(a=1 << 31), "largest token id is 2147483648, but must be below"),
        (lambda v: v["added_tokens"][0].update(id=1 << 40), "largest token id is"),
        (lambda v: v["model"]["vocab"].update(the=5), r"5\d\d tokens share 500 ids"),
        (lambda v: v["model"].update(continuing_subword_prefix="##"), "gives a token outside the vocabulary"),
        (lambda v: v["model"]["merges"].append(["Holmes", "Holmes" * 9]), "merge of 'Holmes' and 'HolmesHolmes"),
        (lambda v: v["model"]["merges"].append(["a"]), "not a tokenizer.json"),
        (lambda v: v["model"]["merges"].append(3), "not a tokenizer.json"),
        (lambda v: v["model"].update(type="Other"), "cannot be loaded"),
        (lambda v: v["model"]["merges"].append(["x" * 3000, "y"]), "merge of 'xxx"),
        (lambda v: v["added_tokens"][0].update(id=10**4000), "largest token id is 1000"),
        (lambda v: v.update(version="x" * 3000), "cannot be loaded"),
        (lambda v: v.update(normalizer=[]), "cannot be loaded"),
        (lambda v: v.update(normalizer={"type": "Sequence"}), "cannot be loaded"),
        (lambda v: v.update(truncation={}) or v["model"]["vocab"].update({"\ud800": 500}), "cannot be loaded"),
    ],
)
def test_broken_files_are_refused_in_one_line(change, reason, capfd):
    with pytest.raises(InputError, match=f"my.json: .*{reason}") as caught:
        Tokenizer(edited(byte_level(), change), "my.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert capfd.readouterr() == ("", "")  # native code reports a panic itself


def test_overlaps():
    assert find_overlap(["<a>", "<b>", "<a>b", "  ", "   "]) is None
    assert find_overlap(["aba"]) is None
    assert find_overlap(["the", "her"]) == ("the", "her")
    assert find_overlap(["bab", "ab"]) == ("ab", "bab")
    assert find_overlap(["  ", " the"]) == ("  ", " the")


def test_ids_of_documents_do_not_depend_on_the_others():
    for name in ("Llama 2", "NFC", "Unigram"):
        tokenizer = Tokenizer(make(name))
        texts = [b"e", "\u0301x".encode(), b"", b" a", b"b"]
        ids, offsets = tokenizer.encode_batch(texts, parallel=False)
        for i, text in enumerate(texts):
            assert np.array_equal(ids[offsets[i] : offsets[i + 1]], tokenizer.encode(text.decode()))
