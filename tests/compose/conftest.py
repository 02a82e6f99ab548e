"""Real containers take minutes and an engine: those tests run by `make test-compose` alone, and skip elsewhere."""

import subprocess

import pytest


def pytest_collection_modifyitems(config, items):
    marked = [item for item in items if "compose" in item.keywords and item.get_closest_marker("compose")]
    why = "takes minutes and a Docker engine: make test-compose"
    if config.option.markexpr == "compose" and marked:
        why = no_engine()
    for item in marked:
        if why:
            item.add_marker(pytest.mark.skip(reason=why))


def no_engine():
    """Why `docker compose` cannot be used here; empty if it can."""
    for command in (["docker", "compose", "version"], ["docker", "info"]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"no Docker engine: {error}"
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()[-1]
            return f"no Docker engine: {' '.join(command)}: {said}"
    return ""
