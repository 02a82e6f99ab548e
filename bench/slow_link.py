"""``make bench-link`` (root on Linux): the cost of communication between workers over a link of 100 Mbit/s.

Two network namespaces are joined by a veth pair, which `tc` limits to 100 Mbit/s. The benchmark measures over it an
all-reduce of all gradients by gloo, with one rank in each namespace. It also measures the transfers of a worker in a
round: weights from an S3 server (moto) in the other namespace, and the weight change back to it. A step's computation
is measured apart: half a batch of the demo's model on one thread. From these it computes the seconds per million tokens
for two workers. The transfers of a round are added up, as if all workers shared the server's link.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from bench.table import show

MBIT = 100
HOSTS = ("10.77.0.1", "10.77.0.2")
REPEATS = 10
LIMIT_SECONDS = 120


def main() -> None:
    """Measure and print the results."""
    parameters, step_tokens, compute = step_of_a_worker()
    with namespaces() as names:
        reduce_seconds = _measure(names, f"allreduce-{parameters}", f"allreduce-{parameters}")
        roles = (f"get-{4 * parameters}", f"put-{4 * parameters}", f"put-{parameters}")
        down, up, small = (_measure(names, "server", role) for role in roles)
    steps = 1e6 / step_tokens
    rows = [("no exchange", "", "", f"{steps * compute:.0f}")]
    rows += [("allreduce", "1", f"{reduce_seconds:.3f}", f"{steps * (compute + reduce_seconds):.0f}")]
    for name, change in (("rounds, float32", up), ("rounds, int8", small)):
        for every in (10, 30, 100):
            exchange = 2 * (down + change) + down + change  # two workers, and the driver's read and write
            rows.append((name, str(every), f"{exchange:.3f}", f"{steps * (compute + exchange / every):.0f}"))
    show(
        f"{parameters:,} parameters, 2 workers, steps of {step_tokens} tokens, {MBIT} Mbit/s",
        ("", "local steps", "s/exchange", "s/million tokens"),
        rows,
    )


def step_of_a_worker() -> tuple[int, int, float]:
    """Return the demo model's number of parameters, the tokens of a step, and one worker's seconds for half a step."""
    import torch

    from jobs.config import resolve
    from jobs.model.kinds import build_model
    from jobs.model.language_model import DataShape
    from jobs.training.learner import Learner

    torch.set_num_threads(1)
    config = resolve("none", "demo", {"train.dtype": "float32"})
    size, batch_size = config.windows.size, config.train.batch_size
    model = build_model(config.model, DataShape(config.tokenize.vocab_size, size, 0), 0)
    learner = Learner(model, config.train, torch.device("cpu"))
    windows = torch.randint(config.tokenize.vocab_size, (batch_size // 2, size + 1))
    started = time.process_time()
    for _ in range(REPEATS):
        learner.backward(windows, windows.numel())
        learner.update(1e-3)
    return model.num_parameters, batch_size * size, (time.process_time() - started) / REPEATS


@contextmanager
def namespaces() -> Iterator[tuple[str, str]]:
    """Create two network namespaces with a slow link between them, and remove them at the end."""
    suffix = uuid.uuid4().hex[:6]
    names = (f"nj-{suffix}-a", f"nj-{suffix}-b")
    try:
        for name in names:
            _run("ip", "netns", "add", name)
        _run(
            "ip",
            "link",
            "add",
            f"v{suffix}a",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            f"v{suffix}b",
            "netns",
            names[1],
        )
        for name, host, end in zip(names, HOSTS, "ab", strict=True):
            inside = ("ip", "netns", "exec", name)
            _run(*inside, "ip", "addr", "add", f"{host}/24", "dev", f"v{suffix}{end}")
            _run(*inside, "ip", "link", "set", f"v{suffix}{end}", "up")
            _run(*inside, "ip", "link", "set", "lo", "up")
            shape = ("tbf", "rate", f"{MBIT}mbit", "burst", "64kb", "latency", "50ms")
            _run(*inside, "tc", "qdisc", "add", "dev", f"v{suffix}{end}", "root", *shape)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


def _measure(names: tuple[str, str], first: str, second: str) -> float:
    """Run a role in each namespace, and return the seconds that the second one prints."""
    roles = [(names[0], first, "0"), (names[1], second, "1")]
    command = ["ip", "netns", "exec"]
    started = [
        subprocess.Popen(
            [*command, name, sys.executable, "-m", "bench.slow_link", role, rank],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name, role, rank in roles
    ]
    try:
        output, _ = started[1].communicate(timeout=LIMIT_SECONDS)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return float(output.split()[-1])


def _all_reduce(parameters: int, rank: int) -> None:
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import TCPStore  # torch.distributed does not export the type

    os.environ["GLOO_SOCKET_IFNAME"] = next(name for _, name in socket.if_nameindex() if name != "lo")
    store = TCPStore(HOSTS[0], 29500, 2, rank == 0, timedelta(seconds=LIMIT_SECONDS))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    values = torch.ones(parameters)
    dist.all_reduce(values)
    started = time.perf_counter()
    for _ in range(REPEATS):
        dist.all_reduce(values)
    print((time.perf_counter() - started) / REPEATS, flush=True)
    time.sleep(1)


def _serve() -> None:
    from moto.server import ThreadedMotoServer

    ThreadedMotoServer(HOSTS[0], 5000, verbose=False).start()
    time.sleep(LIMIT_SECONDS)


def _transfer(role: str) -> None:
    """Print the mean seconds of putting or getting an object."""
    import boto3

    from jobs.lake import store

    os.environ |= {"AWS_ENDPOINT_URL": f"http://{HOSTS[0]}:5000", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    verb, size = role.split("-")
    data = os.urandom(int(size))
    _wait_for_server()
    boto3.client("s3").create_bucket(Bucket="lake")
    store.write_bytes("s3://lake/x", data)
    started = time.perf_counter()
    for _ in range(REPEATS):
        if verb == "put":
            store.write_bytes("s3://lake/x", data)
        else:
            store.read_bytes("s3://lake/x")
    print((time.perf_counter() - started) / REPEATS, flush=True)


def _wait_for_server() -> None:
    for _ in range(LIMIT_SECONDS):
        try:
            socket.create_connection((HOSTS[0], 5000), 1).close()
            return
        except OSError:
            time.sleep(0.5)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1].startswith("allreduce-"):
        _all_reduce(int(sys.argv[1].partition("-")[2]), int(sys.argv[2]))
    elif sys.argv[1] == "server":
        _serve()
    else:
        _transfer(sys.argv[1])
