"""Models with random weights, small enough to be made for a test."""

from __future__ import annotations

import torch

from jobs.model.llama import Llama, LlamaConfig
from jobs.tokenizer.tokenizer import Tokenizer
from tests.support.handmade import train_tokenizer


def untrained_model(seed: int = 0, *, is_endless: bool = False) -> tuple[Llama, Tokenizer]:
    """Return a model whose weights make flat distributions, so that draws differ, and its tokenizer.

    In an endless model, the first feature of all states is positive, and that of the end-of-text token is the smallest.
    The weight of this feature makes the probability of that token about 1e-10.
    """
    tokenizer = train_tokenizer()
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, num_positions=16, num_layers=2, embedding_size=32, hidden_size=64,
        num_heads=2, num_kv_heads=1, rope_theta=10_000.0, norm_epsilon=1e-5,
    )  # fmt: skip
    model = Llama(config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        if is_endless:
            model.embeddings[:, 0] = 3
            model.embeddings[tokenizer.end_of_text] = 0
            model.embeddings[tokenizer.end_of_text, 0] = 0.3
            model.model.norm.weight[0] = 4
            for name, parameter in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    parameter[0] = 0
    return model, tokenizer
