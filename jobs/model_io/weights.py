"""``model.safetensors`` of the model folder: the tensors of a model, and their shapes by its configuration."""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jobs.errors import DamagedError
from jobs.model.context import AttentionConfig, ContextConfig, EmbeddingRegression
from jobs.model.language_model import LanguageModel
from jobs.model.llama import LlamaConfig

Shapes = dict[str, tuple[int, ...]]
"""The shapes of tensors by their names in a state dictionary."""


def weights_file(model: LanguageModel) -> bytes:
    """Return the content of ``model.safetensors``."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return save(tensors, {"format": "pt"})


def parse_weights(data: bytes, where: str, shapes: Shapes) -> dict[str, Tensor]:
    """Return the tensors of a ``model.safetensors``.

    Raises:
        DamagedError: if a tensor is missing or unknown, or has another shape than in `shapes`.
    """
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"{where}: not a safetensors file ({error})") from None
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if found.get(name) != shapes.get(name):
            raise DamagedError(f"{where}: tensor {name} {_mismatch(found.get(name), shapes.get(name))}")
        if not tensors[name].is_floating_point():
            raise DamagedError(f"{where}: tensor {name} holds {tensors[name].dtype}, not floating point numbers")
    return tensors


def weight_shapes(model_class: type[LanguageModel], config: Any) -> Shapes:
    """Return the shapes of a model's tensors without building the model, whose sizes may not fit the memory."""
    if isinstance(config, LlamaConfig):
        return _llama_shapes(config)
    last = config.hidden_sizes[-1]
    if issubclass(model_class, EmbeddingRegression):
        size = config.embedding_size
        return _encoder_shapes(config) | {"output.weight": (size, last), "output.bias": (size,)}
    return _encoder_shapes(config) | {"lm_head.weight": (config.vocab_size, last)}


def _llama_shapes(config: LlamaConfig) -> Shapes:
    size, hidden = config.embedding_size, config.hidden_size
    kv_size = config.num_kv_heads * config.head_size
    layer = {
        "input_layernorm": (size,),
        "self_attn.q_proj": (size, size),
        "self_attn.k_proj": (kv_size, size),
        "self_attn.v_proj": (kv_size, size),
        "self_attn.o_proj": (size, size),
        "post_attention_layernorm": (size,),
        "mlp.gate_proj": (hidden, size),
        "mlp.up_proj": (hidden, size),
        "mlp.down_proj": (size, hidden),
    }
    shapes: Shapes = {
        f"model.layers.{index}.{name}.weight": shape
        for index in range(config.num_layers)
        for name, shape in layer.items()
    }
    return shapes | {"model.embed_tokens.weight": (config.vocab_size, size), "model.norm.weight": (size,)}


def _encoder_shapes(config: ContextConfig) -> Shapes:
    """Return the shapes of a context model's tensors except the output layer."""
    num_inputs = 1 if isinstance(config, AttentionConfig) else config.num_positions
    sizes = (num_inputs * config.embedding_size, *config.hidden_sizes)
    shapes: Shapes = {"model.embed_tokens.weight": (config.vocab_size, config.embedding_size)}
    for index, (inputs, outputs) in enumerate(zip(sizes, config.hidden_sizes, strict=False)):
        shapes |= {f"model.dense.{index}.weight": (outputs, inputs), f"model.dense.{index}.bias": (outputs,)}
    if isinstance(config, AttentionConfig):
        square = (config.embedding_size, config.embedding_size)
        shapes |= {f"model.{name}_proj.weight": square for name in "qkvo"}
        if config.positions == "learned":
            shapes["model.positions.weight"] = (config.num_positions, config.embedding_size)
    return shapes


def _mismatch(found: tuple[int, ...] | None, expected: tuple[int, ...] | None) -> str:
    if expected is None:
        return "does not belong to the model that config.json describes"
    size = " x ".join(map(str, expected))
    if found is None:
        return f"is missing; config.json requires it with {size} values"
    return f"has {' x '.join(map(str, found))} values, but config.json requires {size}"
