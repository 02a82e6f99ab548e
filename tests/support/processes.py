"""Processes of a training, found from outside."""

import psutil


def inline_workers(driver: psutil.Process | None = None) -> list[psutil.Process]:
    """Return the workers of the inline engine below `driver` or below this process, by rank."""
    found = (driver or psutil.Process()).children(recursive=True)
    return sorted(filter(_is_worker, found), key=lambda process: process.pid)


def _is_worker(process: psutil.Process) -> bool:
    """Return True for a worker, and False for the server that forks the workers."""
    try:
        both = [process, process.parent() or process]
        return all("multiprocessing.forkserver" in " ".join(each.cmdline()) for each in both)
    except psutil.Error:  # it has ended meanwhile
        return False
