"""End a driver whose parent process has ended.

Cancelling a step of EMR ends the JVM of spark-submit, which is the driver's parent. The driver's Python process would
notice only at its next call into the JVM, which may be hours later. Until then it would use the machine and the lake.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

log = logging.getLogger(__name__)


def exit_with_parent(poll_seconds: float = 1.0, grace_seconds: float = 30.0) -> None:
    """Send this process SIGTERM when its parent has ended, and exit if it still runs after the grace period.

    A thread watches the parent, so the main thread may be computing.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(poll_seconds)
        log.error("spark-submit has ended: this driver ends, too")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
