"""Every kind of model: its gradients, its inputs and targets, and that it memorizes a repeated text."""

import math
import os

import pytest
import torch
from torch.func import functional_call

from jobs.config import ModelConfig
from jobs.engine.inline import InlineEngine
from jobs.errors import InputError
from jobs.generation.continuation import GenerationSettings
from jobs.generation.generate import Request, generate
from jobs.generation.inference import to_inference
from jobs.generation.sampling import Sampling
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.model.context import of_last_document
from jobs.model.kinds import MODELS, build_model
from jobs.model.language_model import DataShape
from jobs.model_io.archive import pack
from jobs.model_io.folder import load_model, read_contents
from jobs.model_io.gguf import to_gguf
from jobs.steps import train
from tests.support.handmade import make_datasets, make_run, train_tokenizer

SHAPE = DataShape(vocab_size=11, num_positions=5, end_of_text=0)
SMALL = {"num_layers": 2, "embedding_size": 8, "hidden_size": 12, "hidden_sizes": (7, 6), "num_heads": 2,
         "num_kv_heads": 1}  # fmt: skip
VARIANTS = [
    *({"kind": kind} for kind in MODELS),
    *({"kind": "context_attention", "positions": positions} for positions in ("sinusoidal", "learned", "none")),
]
CONTEXT_KINDS = [kind for kind in MODELS if kind != "transformer"]
WORDS = "abc def ghi jkl mno pqr stu vwx "


def small(seed=1, **settings):
    return build_model(ModelConfig(**SMALL | settings), SHAPE, seed)


class Loss(torch.nn.Module):
    """A module whose call returns the training loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, windows):
        return self.model.training_loss(windows, torch.float64)


def named(variant):
    return "-".join(variant.values())


@pytest.mark.parametrize("variant", VARIANTS, ids=named)
def test_gradients_equal_finite_differences(variant):
    model = small(**{"num_layers": 1, "embedding_size": 4, "hidden_size": 5, "hidden_sizes": (4, 3)} | variant).double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    generator = torch.Generator().manual_seed(5)
    windows = torch.randint(0, SHAPE.vocab_size, (3, 6), generator=generator)
    values = [0.7 * torch.randn(each.shape, dtype=torch.float64, generator=generator) for each in parameters]

    def loss(*values):
        return functional_call(
            Loss(model), {f"model.{name}": value for name, value in zip(names, values, strict=True)}, windows
        )

    gradients = torch.autograd.grad(loss(*(value.requires_grad_() for value in values)), values)
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients)  # else there is nothing to check
    assert torch.autograd.gradcheck(loss, values)


@pytest.mark.parametrize("variant", VARIANTS, ids=named)
def test_the_score_is_the_training_loss_of_all_targets(variant):
    model = small(**variant)
    windows = torch.randint(0, SHAPE.vocab_size, (300, 6), generator=torch.Generator().manual_seed(5))
    loss, hits = model.score(windows, torch.float32)
    assert loss == pytest.approx(model.training_loss(windows, torch.float32).item(), rel=1e-5)
    num_targets = 300 * model.targets_per_window
    assert 0 <= hits <= num_targets
    untrained = {"nats": math.log(SHAPE.vocab_size), "squared distance": 1.0}[model.loss_unit]
    assert loss / num_targets == pytest.approx(untrained, rel=0.1)


@pytest.mark.parametrize("kind", CONTEXT_KINDS)
def test_a_context_model_predicts_the_last_token_from_all_before_it(kind):
    model = small(kind=kind, hidden_sizes=(32,))
    window = torch.tensor([[1, 2, 3, 4, 5, 6]])
    contexts = window[:, :-1]
    logits = model.next_logits(contexts)
    loss = model.training_loss(window, torch.float32).item()
    squared = kind == "embedding_regression"
    expected = logits[0, 6] / (-8 / 2) if squared else -logits.log_softmax(-1)[0, 6]
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    for place in range(5):
        changed = contexts.clone()
        changed[0, place] = 9
        assert not torch.equal(model.next_logits(changed), logits), f"token {place} is not seen"


def test_a_context_ends_at_the_beginning_of_its_document():
    contexts = torch.tensor([[1, 2, 0, 3, 4], [0, 1, 2, 3, 4], [1, 0, 2, 3, 0], [1, 2, 3, 4, 5]])
    expected = [[0, 0, 0, 3, 4], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert of_last_document(contexts, 0).tolist() == expected
    model = small(kind="context_mlp")
    one, other = model.next_logits(contexts[:1]), model.next_logits(torch.tensor([[7, 8, 0, 3, 4]]))
    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["context_mlp", "embedding_regression"])
def test_short_and_long_contexts_have_the_same_norm(kind):
    """Compare the inputs of the first dense layer for contexts of 1, 4 and 64 tokens."""
    shape = DataShape(vocab_size=11, num_positions=64, end_of_text=0)
    model = build_model(ModelConfig(**SMALL | {"kind": kind}), shape, 1)
    model.embeddings.data.copy_(torch.nn.functional.normalize(model.embeddings.data, dim=-1))
    seen = []
    model.model.dense[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    contexts = torch.zeros(3, 64, dtype=torch.long)
    for row, length in enumerate((1, 4, 64)):
        contexts[row, -length:] = torch.arange(length) % 10 + 1
    model.states(contexts)
    assert seen[0].norm(dim=-1).tolist() == pytest.approx([2, 2, 2])


def test_embeddings_of_a_regression_are_fixed_and_have_norm_1():
    model = small(kind="embedding_regression")
    assert model.embeddings.norm(dim=-1).tolist() == pytest.approx([1.0] * 11)
    assert all(parameter is not model.embeddings for parameter in model.parameters())
    vectors = torch.randn(11, 8)
    model.set_embeddings(vectors)
    assert torch.allclose(model.embeddings * vectors.norm(dim=-1, keepdim=True), vectors, atol=1e-6)
    nearest = torch.cdist(torch.eye(8)[:3], model.embeddings).argmin(-1)
    assert torch.equal(nearest, (torch.eye(8)[:3] @ model.embeddings.T).argmax(-1))


@pytest.fixture(scope="module")
def cycle(tmp_path_factory):
    """A lake with a text that repeats one sentence."""
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "cpu_count", lambda: 1)
    place = Lake(tmp_path_factory.mktemp("lake").as_uri())
    tokenizer = train_tokenizer(WORDS * 50, vocab_size=280)
    make_datasets(place, tokenizer, WORDS * 400, size=7)
    yield place
    patch.undo()


@pytest.mark.parametrize("kind", CONTEXT_KINDS)
def test_a_repeated_sentence_is_memorized_and_generated(cycle, kind):
    """The sentence has 16 tokens, a window 7. So the test would fail if targets were shifted by one token."""
    settings = {"model__kind": kind, "model__hidden_sizes": [48], "train__epochs": 8, "train__warmup_steps": 10,
                "train__eval_every": 10_000, "windows__size": 7}  # fmt: skip
    run, config = make_run(cycle, kind, **settings)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert stats["valid_loss"] < 0.05
    assert stats["valid_accuracy"] > 0.99
    regresses = kind == "embedding_regression"
    assert ("mean_vector_loss" in stats) == ("unigram_loss" not in stats) == ("perplexity" not in stats) == regresses
    assert stats["mean_vector_loss" if regresses else "unigram_loss"] > stats["valid_loss"] + 0.8
    model, tokenizer = load_model(run.model)
    prompts = [WORDS[:27], WORDS * 2 + "abc"]  # both fill the context
    greedy = GenerationSettings(sampling=Sampling(temperature=0), max_new_words=20)
    requests = [Request(prompt) for prompt in prompts]
    for prompt, sample in zip(prompts, generate(to_inference(model), tokenizer, requests, greedy), strict=True):
        assert sample.text == (WORDS * 9).removeprefix(prompt)[: len(sample.text)]
        assert len(sample.text.split()) == 20
    zipped = read_contents(run.model_archive)
    assert pack(zipped) == store.read_bytes(run.model_archive)
    with pytest.raises(
        InputError, match="GGUF: only models of kind transformer can be exported; this model is a Nightjar"
    ):
        to_gguf(model, tokenizer, "x")
