"""Our models in `transformers` and llama.cpp: equal logits, tokens and text (``make test-peers``)."""

import os

import pytest
import torch

from jobs.engine.inline import InlineEngine
from jobs.generation.continuation import GenerationSettings
from jobs.generation.decoder import InferenceLlama
from jobs.generation.generate import Request, generate
from jobs.generation.sampling import Sampling
from jobs.lake.layout import Lake
from jobs.lake.uri import local_path
from jobs.model_io.folder import load_model
from jobs.model_io.gguf import to_gguf
from jobs.steps import train
from tests.support.handmade import TEXT, make_datasets, make_run, train_tokenizer

SIZE, NEW_TOKENS, NUM_PROMPTS = 128, 24, 50


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run whose model was trained on English text."""
    pytest.importorskip("transformers", reason="transformers is installed by make test-peers alone")
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "cpu_count", lambda: 2)
    place = Lake(tmp_path_factory.mktemp("a lake").as_uri())
    make_datasets(place, train_tokenizer(TEXT, vocab_size=500), TEXT, size=SIZE)
    shape = {"model__num_layers": 3, "model__embedding_size": 64, "model__num_heads": 4, "model__num_kv_heads": 2}
    run, config = make_run(place, windows__size=SIZE, train__epochs=25, train__warmup_steps=10, **shape)
    stats = train.run(run, config, InlineEngine(), lambda _: None)
    assert stats["valid_loss"] < stats["unigram_loss"]
    patch.undo()
    return run


@pytest.fixture(scope="module")
def ours(run):
    return load_model(run.model)


@pytest.fixture(scope="module")
def peers(run):
    """Return the model and the tokenizer that `transformers` opens from the folder."""
    import transformers

    folder = local_path(run.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def prompts():
    words = TEXT.split()
    return [" ".join(words[index * 29 : index * 29 + index % 7 + 1]) for index in range(NUM_PROMPTS)]


def greedy(ours, prompts):
    model, tokenizer = ours
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS, sampling=Sampling(temperature=0))
    return generate(InferenceLlama(model), tokenizer, [Request(prompt) for prompt in prompts], settings)


@torch.inference_mode()
def test_logits_are_equal_over_1000_positions(ours, peers, record_property):
    model, tokenizer = ours
    ids = torch.tensor(tokenizer.encode(TEXT)[: 8 * SIZE].tolist()).view(8, SIZE)
    expected = peers[0](ids).logits
    fused = InferenceLlama(model)
    cache = fused.new_cache()
    found = [fused.prefill(ids[:, :-1].tolist(), range(8), cache), fused.decode(ids[:, -1], cache)]
    differences = (model(ids) - expected).abs(), (torch.stack(found, 1) - expected[:, -2:]).abs()
    record_property("largest differences", [difference.max().item() for difference in differences])
    assert expected.std() > 1
    assert max(difference.max() for difference in differences) <= 1e-4


def test_the_tokenizer_is_equal(ours, peers, prompts):
    for text in [*prompts, "Käfer 你好 \n\n\t 3.14 <|endoftext|> x", ""]:
        assert ours[1].encode(text).tolist() == peers[1](text).input_ids
    assert peers[1].eos_token_id == ours[1].end_of_text


@torch.inference_mode()
def test_greedy_text_is_identical_for_50_prompts(ours, peers, prompts):
    model, tokenizer = peers
    for sample in greedy(ours, prompts):
        ids = tokenizer(sample.prompt, return_tensors="pt").input_ids
        made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS)
        tokens = made[0, ids.shape[1] :].tolist()
        assert sample.tokens == tokens
        assert sample.text == tokenizer.decode(tokens, skip_special_tokens=True)


def test_transformers_saves_the_same_weights(ours, peers, tmp_path):
    peers[0].save_pretrained(tmp_path)
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "model.safetensors")
    weights = ours[0].state_dict()
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights.items())


def test_llama_cpp_writes_the_same_greedy_tokens(ours, prompts, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    path = tmp_path / "model.gguf"
    path.write_bytes(to_gguf(*ours, "test"))
    model = llama_cpp.Llama(str(path), n_ctx=SIZE, verbose=False)
    for sample in greedy(ours, prompts):
        ids = model.tokenize(sample.prompt.encode(), add_bos=False, special=True)
        assert ids == ours[1].encode(sample.prompt).tolist()
        tokens = []
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            tokens.append(token)
            if len(tokens) == NEW_TOKENS or token == ours[1].end_of_text:
                break
        assert tokens == sample.tokens
