"""The losses of documents equal a direct computation, token by token, for every kind of model and of tokenizer."""

import math
from collections import Counter

import pytest
import torch

from jobs.config import resolve
from jobs.evaluation.losses import BATCH_TOKENS, score_texts
from jobs.evaluation.lost_text import lost_text_nats
from jobs.model.kinds import build_model
from jobs.model.language_model import DataShape
from jobs.tokenizer.tokenizer import Tokenizer
from jobs.tokenizer.train import _splitter, vocabulary_json
from tests.support.handmade import TEXT, TINY_MODEL, train_tokenizer

KINDS = ["transformer", "context_mlp", "context_attention", "embedding_regression"]
SIZES = [1, 5, 16]
TEXTS = ["License", TEXT[:700], "", TEXT[40:95], "A \u00e9\u6f22 z", TEXT[:260], "1 2"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


def make(kind, size, tokenizer, seed=1):
    settings = {**TINY_MODEL, "model.kind": kind, "windows.size": size, "model.hidden_sizes": [24, 16]}
    model = build_model(
        resolve("none", "tiny", settings).model, DataShape(tokenizer.vocab_size, size, tokenizer.end_of_text)
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@torch.no_grad()
def direct(text, model, tokenizer, size):
    """Return the loss of a document, each token predicted alone from the tokens before it."""
    ids = [tokenizer.end_of_text, *tokenizer.encode(text).tolist(), tokenizer.end_of_text]
    total = 0.0
    for target in range(1, len(ids)):
        if model.targets_per_window > 1 or not hasattr(model.model, "dense"):  # a transformer
            step = size - size // 2
            first = 0 if target <= size else step * math.ceil((target - size) / step)
            logits = model(torch.tensor([ids[first:target]]))[0, -1]
        else:
            context = [tokenizer.end_of_text] * size + ids[:target]
            states = model.states(torch.tensor([context[-size:]]))
            if model.loss_unit != "nats":
                total += float((model.output(states)[0] - model.embeddings[ids[target]]).square().sum())
                continue
            logits = model.lm_head(states)[0]
        total -= float(torch.log_softmax(logits.double(), dim=-1)[ids[target]])
    return total


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_equal_a_direct_computation(kind, size, tokenizer):
    model = make(kind, size, tokenizer)
    expected = [direct(text, model, tokenizer, size) for text in TEXTS]
    assert score_texts(TEXTS, model, tokenizer) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_do_not_depend_on_the_batches(kind, tokenizer, monkeypatch):
    model = make(kind, 16, tokenizer)
    together = score_texts(TEXTS, model, tokenizer)
    monkeypatch.setattr("jobs.evaluation.losses.BATCH_TOKENS", 40)
    monkeypatch.setattr("jobs.evaluation.losses._SORTED_TOKENS", 100)
    assert score_texts(TEXTS, model, tokenizer) == pytest.approx(together, rel=1e-5)


def test_a_model_that_is_not_finite_has_no_finite_loss(tokenizer):
    model = make("transformer", 16, tokenizer)
    with torch.no_grad():
        model.embeddings[5] = math.nan
    assert not any(map(math.isfinite, score_texts(TEXTS[:2], model, tokenizer)))


def units(kind, texts, vocab_size, lowercase=False):
    config = resolve(
        "c", "tiny", {"tokenize.kind": kind, "tokenize.vocab_size": vocab_size, "tokenize.lowercase": lowercase}
    )
    counted = [Counter(_splitter(kind, lowercase)(text)) for text in texts]
    return Tokenizer(vocabulary_json(counted, config.tokenize))


def hidden(text, tokenizer):
    return lost_text_nats(text, tokenizer.encode(text), tokenizer)


@pytest.mark.parametrize("text", [TEXT[:400], "", "a\r\n b  \u6f22", "<|endoftext|>"])
def test_tokens_that_give_back_their_text_hide_nothing(text, tokenizer):
    assert hidden(text, tokenizer) == 0
    assert hidden(text.replace("\r", ""), units("char", [text], 500)) == 0


def test_an_unknown_word_counts_as_its_bytes_and_an_end():
    tokenizer = units("word", ["to be or not"], 20)
    assert hidden("to be or not", tokenizer) == 0
    one, longer = hidden("to be or n\u00e4t", tokenizer), hidden("to be or n\u00e4ttest", tokenizer)
    assert longer - one == pytest.approx(4 * math.log(257))
    assert one == pytest.approx(5 * math.log(257), abs=7)  # and that spaces are between the words


def test_lost_whitespace_counts_by_how_surprising_it_is():
    tokenizer = units("word", ["to be or not"], 20)
    spaces = hidden("to be " * 500, tokenizer)
    mixed = hidden("to be\n" * 500, tokenizer)
    assert spaces < 20
    assert mixed == pytest.approx(1000 * math.log(2), rel=0.03)
    assert hidden("to \t be", tokenizer) - hidden("to be", tokenizer) > 3 * math.log(257)


def test_lost_case_counts_by_the_letters():
    tokenizer = units("word", ["to be or not"], 20, lowercase=True)
    lower, title, mixed = (hidden(text * 100, tokenizer) for text in ("to be ", "To Be ", "tO bE "))
    assert lower < 20
    assert title - lower == pytest.approx(400 * math.log(2), rel=0.03)
    assert mixed == title


@pytest.mark.parametrize("kind", ["word", "char"])
def test_a_tiny_vocabulary_gains_nothing(kind):
    """Even a perfect model of a few tokens, which loses nothing on them, loses more than a poor model of all bytes."""
    text = " ".join(TEXT[:3000].split())
    tiny, large = (hidden(text, units(kind, [text], size)) / len(text) for size in (12, 2000))
    assert tiny > math.log(256) * (0.5 if kind == "char" else 0.8)
    assert large < 0.3


@pytest.mark.parametrize("kind", ["transformer", "context_mlp"])
def test_batches_do_not_grow_with_the_document(kind, tokenizer, monkeypatch):
    model, sizes = make(kind, 16, tokenizer), []
    real = model.loss_of_each_target
    monkeypatch.setattr(model, "loss_of_each_target", lambda rows: (sizes.append(rows.numel()), real(rows))[1])
    one = score_texts([TEXT[:2000]], model, tokenizer)[0]
    many = score_texts([TEXT[:2000] * 40], model, tokenizer)[0]
    assert max(sizes) <= BATCH_TOKENS
    assert many / 40 == pytest.approx(one, rel=0.05)
