"""Every kind of model in a model folder: it is read back unchanged, and damaged files are rejected."""

import json

import pytest
import torch
from safetensors.torch import load, save

from jobs.config import ModelConfig
from jobs.errors import NightjarError
from jobs.model.kinds import MODELS, build_model
from jobs.model.language_model import DataShape
from jobs.model_io.configs import weight_shapes
from jobs.model_io.folder import model_contents, parse_model
from tests.support.handmade import train_tokenizer

SMALL = {"num_layers": 2, "embedding_size": 8, "hidden_size": 12, "hidden_sizes": (7, 6), "num_heads": 2,
         "num_kv_heads": 1}  # fmt: skip
VARIANTS = [
    *({"kind": kind} for kind in MODELS),
    *({"kind": "context_attention", "positions": positions} for positions in ("sinusoidal", "learned", "none")),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant.values()))
def test_a_model_is_read_back_unchanged(variant):
    tokenizer = train_tokenizer()
    shape = DataShape(tokenizer.vocab_size, 5, tokenizer.end_of_text)
    model = build_model(ModelConfig(**SMALL | variant), shape, 3)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert weight_shapes(type(model), model.config) == shapes
    contents = model_contents(model, tokenizer, {})
    again, _ = parse_model(contents, "here")
    assert type(again) is type(model)
    assert again.config == model.config
    assert model_contents(again, tokenizer, {}) == contents


def with_config(**values):
    return lambda contents: changed(
        contents, "config.json", lambda data: json.dumps(json.loads(data) | values).encode()
    )


def with_tensors(change):
    return lambda contents: changed(contents, "model.safetensors", lambda data: save(change(load(data))))


def changed(contents, name, change):
    """Return contents with one altered file."""
    return {**contents, name: change(contents[name])}


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "transformer"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_config(hidden_sizes=[7, 5]), r"has .*6.* values, but config.json requires .*5"),
        (with_config(hidden_sizes=[]), "hidden_sizes: .*at least 1 item"),
        (with_config(hidden_sizes=None), "valid tuple"),
        (with_config(embedding_size=10**9), "less than or equal to 16384"),
        (with_config(num_positions=0), "num_positions is 0"),
        (with_config(vocab_size="many"), "vocab_size is 'many'"),
        (with_config(end_of_text=10**6), "end_of_text is 1000000"),
        (
            with_config(architectures=["NightjarOther"]),
            "unknown architecture .*NightjarOther.*; known are LlamaForCausalLM",
        ),
        (with_tensors(lambda tensors: tensors | {"extra": torch.ones(2)}), "tensor extra does not belong to the model"),
        (with_tensors(lambda tensors: dict(list(tensors.items())[1:])), "is missing; config.json requires"),
        (lambda contents: changed(contents, "model.safetensors", lambda data: data[:-5]), "not a safetensors file"),
    ],
)
def test_a_damaged_model_is_rejected_in_one_line(kind, damage, message):
    tokenizer = train_tokenizer()
    shape = DataShape(tokenizer.vocab_size, 5, tokenizer.end_of_text)
    contents = model_contents(build_model(ModelConfig(**SMALL | {"kind": kind}), shape), tokenizer, {})
    with pytest.raises(NightjarError, match=message) as caught:
        parse_model(damage(contents), "here")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == (2 if "unknown architecture" in message else 1)
