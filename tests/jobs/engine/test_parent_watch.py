"""A driver ends with the process that started it, though it is busy in Python."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.waiting import PATIENCE_SECONDS

CHILD = """
import signal, sys
from jobs.engine.parent_watch import exit_with_parent
if {deaf}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
exit_with_parent(poll_seconds=0.05, grace_seconds=0.3)
print("ready", flush=True)
while True:
    pass
"""


@pytest.mark.parametrize("deaf", [False, True])
def test_busy_driver_ends_after_its_parent(deaf):
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD.format(deaf=deaf)!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        [child] = psutil.Process(parent.pid).children()
        time.sleep(0.3)
        assert child.is_running()
        parent.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs([child], timeout=PATIENCE_SECONDS)
        assert alive == []
