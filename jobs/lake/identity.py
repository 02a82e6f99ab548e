"""The identity of a run: its project, pipeline and run id, each encoded as a name for folders and clusters.

Airflow's run ids are unique only within a DAG, and several deployments may share a lake. So only all three together
identify a run. Two different names are never encoded as the same name. Encoded names are readable, and every file
system, S3, EMR and Spark accept them: they consist of letters, digits and ``._-=``.
"""

from __future__ import annotations

import hashlib
import re
import string

from jobs.errors import InputError

PROJECT = "lab"
"""The project if `NIGHTJAR_PROJECT` is not set."""
DEFAULT = "default"
"""The pipeline of the DAG `train_llm`."""
LOCAL = "local"
"""The pipeline of runs without Airflow."""
MOST_CHARACTERS = 200
"""Maximum length of an encoded name. File systems allow 255 bytes, and programs add endings such as ``.log``."""

_PLAIN = frozenset(string.ascii_letters + string.digits + "._-")
_ESCAPED = re.compile("=([0-9A-F]{2})")
_CUT = "=h"
"""In a name that was cut, these characters come before the hash. No escaped character begins with them."""


def is_project(name: str) -> bool:
    """Return whether `name` is a valid name of a project. Project names are used everywhere without encoding."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name) is not None


def encode_name(text: str, also: str = "", most: int = MOST_CHARACTERS) -> str:
    """Encode `text` as a name for folders and clusters. No other text is encoded as the same name.

    Letters, digits and ``._-`` stay. Every other byte becomes ``=`` and its hexadecimal code: ``2026-11-26T03:00``
    becomes ``2026-11-26T03=3A00``. A dot or hyphen at the start is escaped as well, so that no name is hidden, leads to
    another folder, or looks like an option. A name that is too long is cut, and ends with the sha256 of the whole name.

    Args:
        text: Any text that is not empty.
        also: Other characters that stay.
        most: Largest number of characters of the name.
    """
    if not text:
        raise InputError("a run, pipeline or project needs a name, got an empty text")
    data = text.encode(errors="surrogatepass")
    plain = _PLAIN | set(also)
    name = "".join(chr(byte) if chr(byte) in plain else f"={byte:02X}" for byte in data)
    if name[0] in ".-":
        name = f"={ord(name[0]):02X}{name[1:]}"
    return shorten_name(name, most)


def shorten_name(name: str, most: int) -> str:
    """Return a name of at most `most` characters: a longer one is cut, and ends with the sha256 of the whole name."""
    if len(name) <= most:
        return name
    end = _CUT + hashlib.sha256(name.encode()).hexdigest()
    return re.sub("=[0-9A-F]?$", "", name[: most - len(end)]) + end


def decode_name(name: str) -> str:
    """Return the text that was encoded as `name`. Return `name` unchanged if it was cut, or is not an encoded name."""
    if not name or _CUT in name:
        return name
    data = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
    try:
        text = data.encode("latin-1").decode(errors="surrogatepass")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return name
    return text if encode_name(text, most=len(name)) == name else name
