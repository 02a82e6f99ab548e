"""Standard output for programs that print text of any language, in terminals of any encoding."""

from __future__ import annotations

import io
import sys
from typing import Literal


def accept_any_text(instead: Literal["backslashreplace", "replace"] = "backslashreplace") -> None:
    r"""Make standard output replace the characters that its encoding lacks, instead of failing.

    By default, each becomes an escape such as ``\u2588``. With `instead` = "replace", each becomes ``?``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=instead)
