"""Cuts long words of a text before BPE is trained on the text.

Training goes through the whole of a word for each merge in it. So training on one word of 2 MB took 53 s. A word is
what GPT-2's pattern splits off: a run of letters, of digits, of other signs or of whitespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import gigatoken
import numpy as np
import numpy.typing as npt

from jobs.corpus.texts import IS_SPACE

MAX_WORD_BYTES = 1024
_CELL = MAX_WORD_BYTES // 2  # a long word covers at least one whole cell, wherever the word begins


class WordCutter:
    """Puts a separator into words that are too long, and counts these words."""

    def __init__(self, separator: bytes) -> None:
        self._separator = separator
        self.num_cut = 0
        """The number of words that were too long."""
        self.longest = 0
        """The size of the longest of these words, in bytes."""

    def cut(self, text: bytes) -> bytes:
        """Return a UTF-8 text with a separator after each 1,024 bytes of a long word."""
        if len(text) <= MAX_WORD_BYTES:
            return text
        cuts = sorted(self._cuts(text))
        if not cuts:
            return text
        return self._separator.join(text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True))

    def _cuts(self, text: bytes) -> Iterator[int]:
        buffer = np.frombuffer(text, np.uint8)
        is_space = IS_SPACE[buffer]
        yield from self._cuts_of_runs(text, _long_runs(~is_space), False)
        # Some characters beyond ASCII are whitespace as well.
        yield from self._cuts_of_runs(text, _long_runs(is_space | (buffer >= 0x80)), True)

    def _cuts_of_runs(self, text: bytes, runs: Iterable[tuple[int, int]], is_space: bool) -> Iterator[int]:
        """Yield where to cut the long words in `runs`. If `is_space`, cut only words of whitespace, else all others."""
        for begin, end in runs:
            position = max(0, begin - 1)  # a space before a word is part of it; of several spaces, the last is
            for word in gigatoken.pretokenizer(text[position : end + 1]):
                if len(word) > MAX_WORD_BYTES and word.decode().isspace() == is_space:
                    self.num_cut += 1
                    self.longest = max(self.longest, len(word))
                    for index in range(MAX_WORD_BYTES, len(word), MAX_WORD_BYTES):
                        cut = position + index
                        while text[cut] & 0xC0 == 0x80:  # inside a character
                            cut -= 1
                        yield cut
                position += len(word)


def _long_runs(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield the begin and the end of each run of True that covers a whole cell. Other runs are too short."""
    full = mask[: len(mask) // _CELL * _CELL].reshape(-1, _CELL).all(axis=1)
    edges = np.flatnonzero(np.diff(full, prepend=False, append=False)) * _CELL
    for begin, end in edges.reshape(-1, 2).tolist():
        # The cells before and after are not full, so the run ends in them.
        before, after = mask[max(0, begin - _CELL) : begin][::-1], mask[end : end + _CELL]
        yield begin - _leading(before), end + _leading(after)


def _leading(mask: npt.NDArray[np.bool_]) -> int:
    """Return the number of True values before the first False."""
    return len(mask) if mask.all() else int(mask.argmin())
