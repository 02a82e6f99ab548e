"""The members of a gang as one `torch.distributed` group."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import TCPStore  # where torch.distributed has it from; it does not export the type

from jobs.engine.base import WorkerContext

Row = TypeVar("Row")
LOOPBACK = "127.0.0.1"


class Group:
    """Workers that compute sums together; alone, a worker's sums are its own."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size

    @property
    def is_first(self) -> bool:
        """Whether this is the member that writes what is written once."""
        return self.rank == 0

    def share(self, num_items: int) -> slice:
        """This worker's part of so many items: contiguous, all parts together are the whole."""
        first, last = (rank * num_items // self.world_size for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def sum(self, values: Tensor) -> None:
        """Replace `values` by their sum over the workers: bitwise the same on each."""
        if self.world_size > 1:
            dist.all_reduce(values)

    def sum_bytes(self, values: Tensor) -> int:
        """Bytes that all workers together send to sum `values`: in a ring, each of them twice to all others but one."""
        return 2 * (self.world_size - 1) * values.nbytes

    def largest(self, value: float) -> float:
        """The largest of the workers' values."""
        tensor = torch.tensor(value, dtype=torch.float64)
        if self.world_size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor.item()


class Part(Group):
    """A worker that computes its share alone: its sums are parts, to be added up elsewhere."""

    def sum(self, values: Tensor) -> None:
        """Leave `values` as they are."""


@contextmanager
def joined(member: WorkerContext, timeout_seconds: float) -> Iterator[Group]:
    """Form the group of a gang; leave it at the end, since a Spark worker process is used again.

    Rank 0 opens a port that the system chooses and tells the others. `timeout_seconds` limits every wait.
    """
    if member.world_size == 1:
        yield Group(0, 1)
        return
    hosts = member.hosts
    same_host = len(set(hosts)) == 1
    timeout = timedelta(seconds=timeout_seconds)
    store = _rendezvous(member, LOOPBACK if same_host else hosts[0], timeout)
    with _gloo_interface(_loopback_name() if same_host else None):
        dist.init_process_group(
            _backend(hosts), store=store, rank=member.rank, world_size=member.world_size, timeout=timeout
        )
    try:
        yield Group(member.rank, member.world_size)
    finally:
        dist.destroy_process_group()


def _rendezvous(member: WorkerContext, host: str, timeout: timedelta) -> TCPStore:
    """The store through which the workers find each other; only its own host can reach it if all are there."""
    if member.rank != 0:
        port = int(member.all_gather("")[0])
        return TCPStore(host, port, member.world_size, False, timeout)
    listener = socket.create_server((LOOPBACK if host == LOOPBACK else "", 0))
    port = listener.getsockname()[1]
    store = TCPStore(
        host, port, member.world_size, True, timeout, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    member.all_gather(str(port))
    return store


def _backend(hosts: Sequence[str]) -> str:
    """What sums tensors: gloo in memory, nccl on GPUs where each worker has one of its own."""
    crowded = max(map(hosts.count, hosts)) > torch.cuda.device_count()
    return "gloo" if crowded else "cpu:gloo,cuda:nccl"


def _loopback_name() -> str | None:
    return next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)


@contextmanager
def _gloo_interface(name: str | None) -> Iterator[None]:
    """Make gloo use a network interface instead of that of the host's name, which may not resolve."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    if name and before is None:
        os.environ["GLOO_SOCKET_IFNAME"] = name
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("GLOO_SOCKET_IFNAME", None)
