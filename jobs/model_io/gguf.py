"""Export of a model as one GGUF file, the format of llama.cpp, with float32 weights.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Rotary positions of llama.cpp rotate neighbouring features,
those of Hugging Face's Llama features half a head apart, so the rows of queries and keys are reordered. The output
layer is left out, because llama.cpp then uses the embeddings.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, LlamaFileType, TokenType

from jobs.errors import InputError
from jobs.model.language_model import LanguageModel
from jobs.model.layers import interleaved
from jobs.model.llama import Llama, LlamaConfig
from jobs.model_io.configs import architecture_of
from jobs.tokenizer.tokenizer import Tokenizer

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def to_gguf(model: LanguageModel, tokenizer: Tokenizer, name: str) -> bytes:
    """Return the content of a GGUF file; raise an InputError if llama.cpp does not support model or tokenizer."""
    if not isinstance(model, Llama):
        raise InputError(
            f"GGUF: only models of kind transformer can be exported; this model is a {architecture_of(model)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_name(name)
        _add_shape(writer, model.config)
        _add_tokenizer(writer, tokenizer, model.config.vocab_size)
        for theirs, ours in tensor_names(model.config).items():
            tensor = model.state_dict()[ours].detach().float()
            if theirs.endswith(("attn_q.weight", "attn_k.weight")):
                tensor = interleaved(tensor, model.config.head_size)
            writer.add_tensor(theirs, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def tensor_names(config: LlamaConfig) -> dict[str, str]:
    """Return our name of each tensor by its name in GGUF."""
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    return names | {
        f"blk.{index}.{theirs}.weight": f"model.layers.{index}.{ours}.weight"
        for index in range(config.num_layers)
        for ours, theirs in _LAYER.items()
    }


def _add_shape(writer: GGUFWriter, config: LlamaConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.num_positions)
    writer.add_embedding_length(config.embedding_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.hidden_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_file_type(LlamaFileType.ALL_F32)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    values = json.loads(tokenizer.json)
    _check_tokenizer(values)
    tokens = {**values["model"].get("vocab", {}), **{each["content"]: each["id"] for each in values["added_tokens"]}}
    by_id = {token_id: token for token, token_id in tokens.items()}
    special = {each["id"] for each in values["added_tokens"] if each["special"]}
    ids = range(vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([by_id.get(token_id, f"[UNUSED{token_id}]") for token_id in ids])
    writer.add_token_types([_token_type(token_id, by_id, special) for token_id in ids])
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in values["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    writer.add_add_bos_token(value=False)


def _check_tokenizer(values: dict[str, Any]) -> None:
    """Raise an InputError unless the tokenizer is byte-level BPE that splits text into words by GPT-2's rule."""
    before = values.get("pre_tokenizer") or {}
    plain = before.get("type") == "ByteLevel" and before.get("use_regex", True) and not before.get("add_prefix_space")
    if values["model"].get("type") != "BPE" or not plain or values.get("normalizer"):
        raise InputError("GGUF: only byte-level BPE tokenizers (tokenize.kind=bpe) can be exported")


def _token_type(token_id: int, by_id: dict[int, str], special: set[int]) -> TokenType:
    if token_id not in by_id:
        return TokenType.UNUSED
    return TokenType.CONTROL if token_id in special else TokenType.NORMAL
