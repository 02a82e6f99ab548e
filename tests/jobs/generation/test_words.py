"""Text from a tokenizer of words: spaces between words, and warnings of unknown words."""

from collections import Counter

import pytest

from jobs.config import ModelConfig, TokenizeConfig
from jobs.generation.continuation import GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.inference import to_inference
from jobs.generation.sampling import Sampling
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import vocabulary_json
from tests.support.handmade import train_tokenizer


@pytest.fixture(scope="module")
def words():
    settings = TokenizeConfig(kind="word")
    return Tokenizer(vocabulary_json([Counter({"the": 9, "man": 8, "sat": 7, ".": 6})], settings))


@pytest.mark.parametrize(
    ("prompt", "following", "text"),
    [
        ("the man", "sat", " sat"),
        ("the man ", "sat", "sat"),
        ("", "the man", "the man"),
        ("the man", ".", "."),
        ("the man\n", "sat.", "sat."),
        ("the Xx", "sat", " sat"),
    ],
)
def test_a_space_separates_the_prompt_from_the_first_word(words, prompt, following, text):
    assert words.decode_after(prompt, words.encode(following)) == text


def test_bpe_tokens_continue_the_last_word_of_the_prompt():
    tokenizer = train_tokenizer()
    for text in ("licen", "ses", " of", "é"):
        assert tokenizer.decode_after("the", tokenizer.encode(text)) == text


def test_unknown_words_are_reported(words, caplog):
    model = build_model(ModelConfig(kind="context_mlp", embedding_size=4, hidden_sizes=[4]), DataShape(6, 3, 0))
    settings = GenerationSettings(max_new_tokens=2, sampling=Sampling(temperature=0))
    requests = [Request("the Walrus sat, the man", sample=n) for n in range(3)]
    samples = generate(to_inference(model), words, requests, settings)
    assert samples[0].unknown_words == ["Walrus", ","]
    warnings = [record.message for record in caplog.records if "vocabulary" in record.message]
    assert warnings == ["these words of the prompt are not in the vocabulary: Walrus, ,"]
    assert samples[0].text == words.decode_after("man", samples[0].tokens)
    assert Tokenizer(train_tokenizer().json).unknown("Walrus ☃") == []
