"""The learner: gradients, compilation, and gradient norms."""

import pytest
import torch

from jobs.config import TrainConfig
from jobs.engine.base import WorkerContext
from jobs.errors import InputError
from jobs.model.llama import Llama, LlamaConfig
from jobs.training.learner import Learner, _warn_of_bfloat16, choose_device, choose_dtype, compile_module
from jobs.training.process_group import choose_backend

CPU = torch.device("cpu")
WINDOWS = torch.arange(8 * 9).view(8, 9) % 11


def learner(**settings):
    model = Llama(LlamaConfig(11, 8, 1, 8, 12, 2, 1, 10_000.0, 1e-5), seed=3)
    return Learner(model, TrainConfig(**{"dtype": "float32", "workers": 1} | settings), CPU)


def test_a_wanted_gpu_that_is_absent_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(0).type == choose_device(0, "cpu").type == "cpu"
    with pytest.raises(InputError, match=r"train\.device=cuda, but torch .* sees no GPU on \S+; choose instances"):
        choose_device(0, "cuda")


def test_workers_of_a_machine_take_different_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    hosts = ["a", "b", "a", "b"]
    ranks = [WorkerContext(rank, 1, hosts, list).local_rank for rank in range(4)]
    assert ranks == [0, 0, 1, 1]
    assert [choose_device(rank, "cuda").index for rank in ranks] == [0, 0, 1, 1]
    assert choose_device(1, "cpu").type == "cpu"


@pytest.mark.parametrize(("feature", "auto", "warned"), [
    ("avx2", torch.float32, True), ("avx512_bf16", torch.bfloat16, False), ("bf16", torch.float32, False),
])  # fmt: skip
def test_bfloat16_without_hardware_for_it_is_warned_of(monkeypatch, caplog, feature, auto, warned):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True})
    _warn_of_bfloat16.cache_clear()
    assert choose_dtype("auto", CPU) == auto
    assert choose_dtype("float32", CPU) == torch.float32
    assert not caplog.records
    assert choose_dtype("bfloat16", CPU) == choose_dtype("bfloat16", CPU) == torch.bfloat16
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["train.dtype=bfloat16"] * warned


@pytest.mark.parametrize(
    ("gpus", "backend"),
    [
        ([2, 1, 2, 1], "gloo"),  # two workers on b share a GPU
        ([2, 2, 2, 2], "cpu:gloo,cuda:nccl"),
        ([2, 2, 2, 0], "gloo"),  # one sees none: all must know it
        ([0, 0, 0, 0], "gloo"),
    ],
)
def test_all_workers_choose_the_same_backend(gpus, backend):
    assert choose_backend(["a", "b", "a", "b"], gpus) == backend


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8, 99])
def test_gradient_accumulation_equals_the_whole_batch(micro_batch_size):
    whole, pieces = learner(), learner(micro_batch_size=micro_batch_size)
    assert pieces.backward(WINDOWS, 64) == pytest.approx(whole.backward(WINDOWS, 64))
    torch.testing.assert_close(pieces.gradients.values, whole.gradients.values)


@pytest.mark.parametrize(
    ("device", "variable", "compiler"), [("cpu", "CXX", r"C\+\+ compiler"), ("cuda", "CC", "C compiler")]
)
def test_compilation_without_a_compiler_is_an_error(monkeypatch, device, variable, compiler):
    monkeypatch.setenv(variable, "no-such-compiler")
    with pytest.raises(InputError, match=rf"train.compile: no {compiler} found \(no-such-compiler\); install one"):
        compile_module(learner().model.model, torch.device(device))


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [("adamw", {"matrices", "vectors"}), ("muon", {"hidden", "matrices", "vectors"}), ("sgd", {"all"})],
)
def test_gradient_norms_of_each_parameter_group(optimizer, names):
    """Compare with the norms of autograd's gradients, before clipping."""
    ours = learner(optimizer=optimizer, max_gradient_norm=1e-3)
    ours.backward(WINDOWS, 64)
    groups = {group.get("name", "all"): group["params"] for group in ours.optimizer.param_groups}
    expected = {
        name: [torch.linalg.vector_norm(one.grad).item() for one in group] for name, group in groups.items() if group
    }
    whole = ours.update(1e-3)
    assert ours.gradient_norms.keys() == expected.keys() == names
    for name, norms in expected.items():
        assert ours.gradient_norms[name]["max"] == pytest.approx(max(norms))
        assert ours.gradient_norms[name]["mean"] == pytest.approx(sum(norms) / len(norms))
    assert whole**2 == pytest.approx(sum(norm**2 for norms in expected.values() for norm in norms))
