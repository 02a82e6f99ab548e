"""Export of a model as one GGUF file, the format of llama.cpp, with float32 weights.

The format is described at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Rotary positions rotate pairs of
features: neighbours in llama.cpp, and features half a head apart in Hugging Face's Llama. So the rows of queries and
keys are reordered. The output layer is left out: without one, llama.cpp uses the embeddings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from gguf import GGUFWriter, LlamaFileType, TokenType

from jobs.errors import InputError
from jobs.model.language_model import LanguageModel
from jobs.model.layers import interleaved
from jobs.model.llama import Llama, LlamaConfig
from jobs.model_io.configs import architecture_of
from jobs.tokenizer.definition import Definition, find_overlap, merges_of, parts_of
from jobs.tokenizer.encoders import unsupported_part
from jobs.tokenizer.tokenizer import Tokenizer

_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# llama.cpp's names of splitting rules, by the pre-tokenizer's patterns (none for GPT-2's own) and `ignore_merges`.
_SPLITTERS = {
    ((), False): "gpt-2",
    ((_LLAMA_3,), True): "llama-bpe",
    ((_LLAMA_3,), False): "dbrx",
    ((_LLAMA_3.replace("{1,3}", ""),), False): "qwen2",
}
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
    """Return the content of a GGUF file. Raise an InputError if llama.cpp does not support the model or tokenizer."""
    if not isinstance(model, Llama):
        raise InputError(
            f"GGUF: only models of kind transformer can be exported; this model is a {architecture_of(model)}"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_name(name)
        _add_shape(writer, model.config)
        _add_tokenizer(writer, tokenizer.definition, model.config.vocab_size)
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
    """Return a dict from the name of each tensor in GGUF to the tensor's name in this project."""
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


def _add_tokenizer(writer: GGUFWriter, definition: Definition, vocab_size: int) -> None:
    splitter = _name_of_splitter(definition)
    added = definition.reference.get_added_tokens_decoder()
    by_id = {token_id: token for token, token_id in definition.reference.get_vocab(with_added_tokens=True).items()}
    kinds = dict.fromkeys(by_id, TokenType.NORMAL)
    kinds |= {each: TokenType.CONTROL if token.special else TokenType.USER_DEFINED for each, token in added.items()}
    ids = range(vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_list([by_id.get(token_id, f"[UNUSED{token_id}]") for token_id in ids])
    writer.add_token_types([kinds.get(token_id, TokenType.UNUSED) for token_id in ids])
    writer.add_token_merges([" ".join(pair) for pair in merges_of(definition.model)])
    writer.add_bos_token_id(definition.end_of_text)
    writer.add_eos_token_id(definition.end_of_text)
    writer.add_add_bos_token(value=False)


def _name_of_splitter(definition: Definition) -> str:
    """Return llama.cpp's name of the rule by which a tokenizer splits text.

    Raise an InputError if llama.cpp does not support the tokenizer.
    """
    for reason in _parts_not_in_llama_cpp(definition):
        raise InputError(
            f"GGUF: llama.cpp cannot apply this tokenizer ({reason}); export with --format folder or zip, or train with"
            " a tokenizer of tokenize.kind=bpe"
        )
    return _SPLITTERS[_splitter(definition)]


def _parts_not_in_llama_cpp(definition: Definition) -> Iterator[str]:
    """Yield reasons why llama.cpp cannot apply a tokenizer.

    Use only the first reason: each check assumes that the earlier checks found nothing.
    """
    if reason := unsupported_part(definition):
        yield reason
    parts = [part for name in ("normalizer", "pre_tokenizer") for part in parts_of(definition.values.get(name))]
    if definition.values.get("normalizer") or parts[-1]["type"] != "ByteLevel":
        yield f"its rules are {', '.join(part['type'] for part in parts)}"
    if parts[-1].get("add_prefix_space", True):
        yield "it puts a space before each text (add_prefix_space)"
    patterns, ignores_merges = _splitter(definition)
    if (patterns, ignores_merges) not in _SPLITTERS:
        pattern = " ".join(patterns) or "that of GPT-2"
        yield f"its pattern is {pattern}, with ignore_merges={str(ignores_merges).lower()}"
    # Of overlapping added tokens, llama.cpp finds the longer one, and `tokenizers` the one that begins first.
    added = [token.content for token in definition.reference.get_added_tokens_decoder().values()]
    if overlap := find_overlap(added):
        yield f"its added tokens {overlap[0]!r} and {overlap[1]!r} overlap"


def _splitter(definition: Definition) -> tuple[tuple[str, ...], bool]:
    """Return the patterns by which a byte-level pre-tokenizer splits text, and the BPE model's `ignore_merges`."""
    parts = parts_of(definition.values["pre_tokenizer"])
    patterns = tuple(part["pattern"]["Regex"] for part in parts if part["type"] == "Split")
    return patterns, bool(definition.model.get("ignore_merges"))
