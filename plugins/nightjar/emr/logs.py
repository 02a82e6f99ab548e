"""Read the logs that EMR uploads, and find the line in them that says why a program failed."""

from __future__ import annotations

import gzip
import re
import zlib

from jobs.errors import shorten
from jobs.lake.store import Store

_MOST_CHARACTERS = 1000
_ERROR = re.compile(
    r"""^(?:(?:nightjar|bootstrap:\ FAILED):\ \S.*
    |(?:Exception\ in\ thread\ "[^"]*"\ |Caused\ by:\ )?(?:\w+\.)*\w*(?:Error|Exception)(?::\ \S.*)?)$""",
    re.MULTILINE | re.VERBOSE,
)
"""Matches an error line of Nightjar, or of an exception of Python or Java."""
_PLAIN = re.compile(r"^(?!\d\d/\d\d/\d\d |WARNING: )\S.*$", re.MULTILINE)
_SPARK_LOG = re.compile(r"^\d\d/\d\d/\d\d \d\d:", re.MULTILINE)


def read_log(store: Store, uri: str) -> str | None:
    """Return a log as text, or None if it does not exist yet or is not complete."""
    try:
        return gzip.decompress(store.read_bytes(uri)).decode("utf-8", errors="replace")
    except (FileNotFoundError, EOFError, gzip.BadGzipFile, zlib.error):
        return None


def last_error(stdout: str, stderr: str, *, or_last_line: bool = True) -> str:
    """Return the last error in the logs of a program, or "".

    If the logs have no error and `or_last_line` is true, return the last line that Spark did not log.
    """
    # spark-submit redirects the driver's stderr to its own stdout; other programs write errors to stderr.
    texts = (stderr, stdout) if _SPARK_LOG.search(stderr) else (stdout, stderr)
    found = [line for text in texts for line in _ERROR.findall(text)]
    if or_last_line and not found:
        found = [line for text in texts for line in _PLAIN.findall(text)]
    return shorten(found[-1].strip(), _MOST_CHARACTERS) if found else ""
