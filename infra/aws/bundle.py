"""The DAGs and plugins for an Airflow elsewhere, such as MWAA: ``nightjar aws-bundle`` writes them to ``dist/``.

``dags.zip`` has the DAG files. ``plugins.zip`` has what they import, for the root of the plugins folder: the packages
`nightjar` and `jobs`, and the locked requirements that the cluster's package is built from.
"""

from __future__ import annotations

from nightjar.packaging.build import PROJECT_ROOT

_PACKED_SUFFIXES = frozenset({".py", ".toml", ".sh"})
_IGNORED = b"# Libraries that the DAGs import. Airflow would otherwise load each file as a plugin.\nnightjar/\njobs/\n"


def dags() -> dict[str, bytes]:
    """Return the DAG files by their names."""
    return {path.name: path.read_bytes() for path in sorted((PROJECT_ROOT / "dags").glob("*.py"))}


def plugins() -> dict[str, bytes]:
    """Return the content of the plugins folder by path."""
    files = {}
    for source in (PROJECT_ROOT / "plugins" / "nightjar", PROJECT_ROOT / "jobs"):
        for path in sorted(path for path in source.rglob("*") if path.suffix in _PACKED_SUFFIXES):
            files[path.relative_to(source.parent).as_posix()] = path.read_bytes()
    for name in ("requirements/job.txt", "requirements/torch.txt"):
        files[name] = (PROJECT_ROOT / name).read_bytes()
    return {**files, ".airflowignore": _IGNORED}
