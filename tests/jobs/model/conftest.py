import pytest
import torch

from jobs.model.llama import Llama, LlamaConfig
from tests.jobs.handmade import train_tokenizer


@pytest.fixture(scope="session")
def model_and_tokenizer_untrained():
    """A small model with weights that make flat distributions, so that draws differ, and its tokenizer."""
    tokenizer = train_tokenizer()
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, num_positions=16, num_layers=2, embedding_size=32, hidden_size=64,
        num_heads=2, num_kv_heads=1, rope_theta=10_000.0, norm_epsilon=1e-5,
    )  # fmt: skip
    model = Llama(config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model, tokenizer
