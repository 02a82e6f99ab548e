"""End a driver whose parent has died.

Cancelling a step of EMR ends the JVM of spark-submit. The driver's Python process would notice at its next call into
the JVM, which may be hours away, and would go on using the machine and the lake.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

log = logging.getLogger(__name__)


def end_with_parent(poll_seconds: float = 1.0, grace_seconds: float = 30.0) -> None:
    """Send this process SIGTERM when its parent has died, and end it at once if it still runs after the grace period.

    A thread watches the parent, so it works while the main thread computes.
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
