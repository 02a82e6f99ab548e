"""A worker group as a `torch.distributed` process group."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore  # torch.distributed does not export this type

from jobs.engine.base import WorkerContext

LOOPBACK = "127.0.0.1"


class Group:
    """One worker's view of a worker group whose workers sum tensors with each other."""

    is_local = False
    """True if each worker takes optimizer steps by itself, without sums over the workers."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size

    @property
    def is_first(self) -> bool:
        """True on rank 0, which writes checkpoints and metrics."""
        return self.rank == 0

    def share(self, num_items: int) -> slice:
        """Return this worker's contiguous share of `num_items` items. The shares of all workers cover all items."""
        first, last = (rank * num_items // self.world_size for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def sum(self, values: Tensor) -> None:
        """Replace `values` by their sum over the workers, which is bitwise the same on each worker."""
        if self.world_size > 1:
            dist.all_reduce(values)

    def sum_bytes(self, values: Tensor) -> int:
        """Return the bytes that all workers together send to sum `values` in a ring."""
        return 2 * (self.world_size - 1) * values.nbytes

    def largest(self, value: float) -> float:
        """Return the largest `value` of all workers."""
        tensor = torch.tensor(value, dtype=torch.float64)
        if self.world_size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.item()


class LocalGroup(Group):
    """A `Group` whose workers do not communicate. The driver adds up the results of all ranks."""

    is_local = True

    def sum(self, values: Tensor) -> None:
        """Leave `values` as they are."""

    def sum_bytes(self, values: Tensor) -> int:
        """Return 0, since nothing is sent."""
        return 0


@contextmanager
def join_group(context: WorkerContext, timeout_seconds: float) -> Iterator[Group]:
    """Join the process group of the worker group, and leave it at the end, since Spark reuses worker processes."""
    if context.world_size == 1:
        yield Group(0, 1)
        return
    hosts = context.hosts
    same_host = len(set(hosts)) == 1
    timeout = timedelta(seconds=timeout_seconds)
    store, gpus = _rendezvous(context, LOOPBACK if same_host else hosts[0], timeout)
    with _gloo_on_loopback() if same_host else nullcontext():
        dist.init_process_group(
            choose_backend(hosts, gpus), store=store, rank=context.rank, world_size=context.world_size, timeout=timeout
        )
    try:
        yield Group(context.rank, context.world_size)
    finally:
        dist.destroy_process_group()


def _rendezvous(context: WorkerContext, host: str, timeout: timedelta) -> tuple[TCPStore, list[int]]:
    """Return the store through which the workers find each other, and the number of GPUs visible to each worker.

    Rank 0 serves the store on a port that the system chooses.
    """
    gpus = torch.cuda.device_count()
    if context.rank != 0:
        answers = context.all_gather(f" {gpus}")
        store = TCPStore(host, int(answers[0].split()[0]), context.world_size, False, timeout)
    else:
        listener = socket.create_server((LOOPBACK if host == LOOPBACK else "", 0))
        port = listener.getsockname()[1]
        store = TCPStore(
            host, port, context.world_size, True, timeout, wait_for_workers=False, master_listen_fd=listener.detach()
        )
        answers = context.all_gather(f"{port} {gpus}")
    return store, [int(answer.split()[-1]) for answer in answers]


def choose_backend(hosts: Sequence[str], gpus: Sequence[int]) -> str:
    """Return the backend: gloo, and also nccl for GPU tensors if each worker has a GPU of its own.

    `hosts` and `gpus` have an entry for each worker. All workers pass the same entries, so all choose the same backend.
    """
    crowded = any(hosts.count(host) > seen for host, seen in zip(hosts, gpus, strict=True))
    return "gloo" if crowded else "cpu:gloo,cuda:nccl"


@contextmanager
def _gloo_on_loopback() -> Iterator[None]:
    """Make gloo use the loopback interface. By default, gloo resolves the host's name, which may fail."""
    name = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if name is None or "GLOO_SOCKET_IFNAME" in os.environ:
        yield
        return
    os.environ["GLOO_SOCKET_IFNAME"] = name
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
