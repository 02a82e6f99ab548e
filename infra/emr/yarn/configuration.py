"""The configuration files of a host. `release.toml` lists EMR's values, and why some differ here."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

_RELEASE = Path(__file__).with_name("release.toml")
_HADOOP = ("core-site", "yarn-site", "capacity-scheduler")
_SPARK = "spark-defaults"
_LOGGING = """\
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{yyyy-MM-dd HH:mm:ss} %p %c{1}: %m%n
"""


@dataclass(frozen=True)
class Difference:
    """A configuration key whose value differs from EMR's value."""

    file: str
    key: str
    value: str
    reason: str


@cache
def release() -> dict[str, Any]:
    """Return the content of `release.toml`."""
    return tomllib.loads(_RELEASE.read_text("utf-8"))


def differences() -> tuple[Difference, ...]:
    """Return every key whose value differs from EMR's value."""
    return tuple(Difference(**each) for each in release()["differs"])


def recorded(file: str) -> dict[str, str]:
    """Return EMR's own values of a configuration file. Return an empty dictionary if none are recorded."""
    values: dict[str, str] = release()["recorded"].get(file, {}).get("values", {})
    return values


def properties(file: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the properties to write to a configuration file. `{name}` in a property is replaced by `values[name]`."""
    raw = recorded(file) | {each.key: each.value for each in differences() if each.file == file}
    return {key: _fill(value, values) for key, value in raw.items()}


def _fill(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


@dataclass(frozen=True)
class ConfFolders:
    """The folders with the configuration that all hosts use."""

    hadoop: Path
    spark: Path


def write(
    folder: Path, values: Mapping[str, str], spark_defaults: Mapping[str, str], exports: Mapping[str, str]
) -> ConfFolders:
    """Write the configuration files of Hadoop and Spark below `folder`.

    Args:
        folder: Folder to write to.
        values: A dict from names to values: `{name}` in the files is replaced by `values[name]`.
        spark_defaults: The classification `spark-defaults` of the cluster, which overrides EMR's values.
        exports: The cluster's classification `export` in `spark-env`.
    """
    found = ConfFolders(folder / "hadoop", folder / "spark")
    for each in (found.hadoop, found.spark):
        each.mkdir(parents=True, exist_ok=True)
    for name in _HADOOP:
        (found.hadoop / f"{name}.xml").write_bytes(_xml(properties(name, values)))
    (found.hadoop / "log4j2.properties").write_text(_LOGGING, "utf-8")
    defaults = {**properties(_SPARK, values), **spark_defaults}
    lines = [f"{key} {value}\n" for key, value in defaults.items()]
    (found.spark / "spark-defaults.conf").write_text("".join(lines), "utf-8")
    exported = [f"export {key}={shlex.quote(value)}\n" for key, value in exports.items()]
    (found.spark / "spark-env.sh").write_text("".join(exported), "utf-8")
    return found


def _xml(content: Mapping[str, str]) -> bytes:
    root = ElementTree.Element("configuration")
    for key, value in content.items():
        entry = ElementTree.SubElement(root, "property")
        ElementTree.SubElement(entry, "name").text = key
        ElementTree.SubElement(entry, "value").text = value
    written: bytes = ElementTree.tostring(root)
    return written
