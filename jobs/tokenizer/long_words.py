"""Cuts long words of a text before BPE is trained on the text.

For each merge inside a word, training goes through the whole word once. So long words take much time: training on one
word of 2 MB took 53 s. A word is a match of GPT-2's pattern: a run of letters, of digits, of other visible characters,
or of whitespace.
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
        """The number of words that were cut so far."""
        self.longest = 0
        """The size of the longest word that was cut, in bytes."""

    def cut(self, text: bytes) -> bytes:
        """Insert the separator into each word of more than 1,024 bytes, after about every 1,024 bytes of the word."""
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
        """Yield the offsets at which to cut the long words in these runs of bytes.

        If `is_space` is true, only words of whitespace are cut. If it is false, only the other words are cut.
        """
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
    """Yield the begin and the end of each run of True values that may contain a long word.

    The mask is divided into cells of 512 values. A run that contains no whole cell is too short for a long word.
    """
    full = mask[: len(mask) // _CELL * _CELL].reshape(-1, _CELL).all(axis=1)
    edges = np.flatnonzero(np.diff(full, prepend=False, append=False)) * _CELL
    for begin, end in edges.reshape(-1, 2).tolist():
        # The cells before and after are not full, so the run ends in them.
        before, after = mask[max(0, begin - _CELL) : begin][::-1], mask[end : end + _CELL]
        yield begin - _leading(before), end + _leading(after)


def _leading(mask: npt.NDArray[np.bool_]) -> int:
    """Return the number of True values before the first False."""
    return len(mask) if mask.all() else int(mask.argmin())
