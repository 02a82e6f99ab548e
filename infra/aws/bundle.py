"""Packs what an Airflow elsewhere needs, such as MWAA, into ``dist/``: ``make aws-bundle``.

``dags.zip`` has the DAG files. ``plugins.zip`` has all that they import, laid out for the root of the plugins folder,
which is on Airflow's path: `nightjar`, `jobs`, what builds the package for the cluster, and the locks it is built from.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from nightjar.packaging.build import PROJECT_ROOT

Entry = tuple[str, Path]

_CODE = frozenset({".py", ".toml", ".sh"})
_ALONE = (
    "requirements/job.txt",
    "requirements/torch.txt",
)
_EARLIEST = (1980, 1, 1, 0, 0, 0)
IGNORED = "# Libraries that DAGs import; Airflow would else run each of their files as a plugin.\nnightjar/\njobs/\n"


def main() -> int:
    """Write both archives; return the exit code."""
    folder = PROJECT_ROOT / "dist"
    folder.mkdir(exist_ok=True)
    for name, entries in (("dags.zip", dags()), ("plugins.zip", plugins())):
        pack(folder / name, list(entries))
        sys.stdout.write(f"{folder / name}: {(folder / name).stat().st_size / 1e6:.2f} MB\n")
    return 0


def dags() -> Iterator[Entry]:
    """The DAG files, at the root of their archive."""
    return ((path.name, path) for path in sorted((PROJECT_ROOT / "dags").glob("*.py")))


def plugins() -> Iterator[Entry]:
    """What the DAGs import, below the root of the plugins folder."""
    for name, folder in (("nightjar", "plugins/nightjar"), ("jobs", "jobs")):
        source = PROJECT_ROOT / folder
        for path in sorted(path for path in source.rglob("*") if path.suffix in _CODE):
            yield f"{name}/{path.relative_to(source).as_posix()}", path
    yield from ((name, PROJECT_ROOT / name) for name in _ALONE)


def pack(target: Path, entries: list[Entry]) -> None:
    """Write a zip that is the same wherever it is made."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, path in entries:
            archive.writestr(_info(name), path.read_bytes())
        if target.name == "plugins.zip":
            archive.writestr(_info(".airflowignore"), IGNORED)


def _info(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    return entry


if __name__ == "__main__":
    sys.exit(main())
