"""Standard output for programs that print text of any language, in terminals of any encoding."""

from __future__ import annotations

import io
import sys
from typing import Literal


def accept_any_text(instead: Literal["backslashreplace", "replace"] = "backslashreplace") -> None:
    r"""Make standard output write characters that its encoding lacks as escapes such as ``\u2588``, or as ``?``."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=instead)
