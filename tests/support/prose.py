"""Texts of random words, any number of which share no sentence."""

import numpy as np

WORDS = [bytes(np.random.default_rng(i).integers(97, 123, 3 + i % 7, np.uint8)) for i in range(999)]


def prose(seed: int, num_words: int, line: int = 12, paragraph: int = 90) -> bytes:
    """Return words in lines and paragraphs of these numbers of words."""
    drawn = np.random.default_rng(seed).integers(0, len(WORDS), num_words)
    ends = [b"\n\n" if i % paragraph == 0 else b"\n" if i % line == 0 else b" " for i in range(1, num_words + 1)]
    return b"".join(WORDS[word] + end for word, end in zip(drawn, ends, strict=True)).strip()
