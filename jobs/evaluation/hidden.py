"""What the tokens of a text hide: the text that cannot be read from them, in nats.

A model is charged for it, so that a vocabulary that hides more text gains nothing. Each part is a code that somebody
could decode with the tokens at hand:

- a piece of text that became the unknown token: each of its bytes and its end, as one of 257 equally likely symbols;
- the text between tokens, such as the whitespace that word tokens lose: which of four kinds each gap is (nothing, a
  space, a line end, any other), by the kinds of the document so far, and any other gap by its bytes as above;
- letters that became lower case: for each letter of either case whether it was upper case, by the letters so far.

Kinds and cases are counted as in the estimator of Krichevsky and Trofimov (1981). Tokens that give back their text
exactly hide nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from jobs.tokenizer.definition import parts_of
from jobs.tokenizer.tokenizer import TokenIds, Tokenizer

_SYMBOLS = 257
_GAPS = ("", " ", "\n")


def hidden_nats(text: str, ids: TokenIds, tokenizer: Tokenizer) -> float:
    """Return the nats of the text that its token `ids` hide."""
    if tokenizer.decode(ids) == text:
        return 0.0
    encoded = tokenizer.definition.reference.encode(text, add_special_tokens=False)
    nats, end, gaps, known = 0.0, 0, list[str](), list[str]()
    for token, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True):
        gaps.append(text[end:start])
        if token == tokenizer.unknown_id:
            nats += _bytes_code(text[start:stop])
        else:
            known.append(text[start:stop])
        end = max(end, stop)
    gaps.append(text[end:])
    normalizers = parts_of(tokenizer.definition.values.get("normalizer"))
    if any(part["type"] == "Lowercase" or part.get("lowercase") for part in normalizers):
        nats += _case_code("".join(known))
    return nats + _gaps_code(gaps)


def _gaps_code(gaps: Sequence[str]) -> float:
    others = [gap for gap in gaps if gap not in _GAPS]
    kinds = Counter(gap if gap in _GAPS else "other" for gap in gaps)
    return _counts_code([kinds[kind] for kind in (*_GAPS, "other")]) + sum(map(_bytes_code, others))


def _case_code(text: str) -> float:
    letters = [letter for letter in text if letter.lower() != letter.upper()]
    upper = sum(letter != letter.lower() for letter in letters)
    return _counts_code([upper, len(letters) - upper])


def _bytes_code(text: str) -> float:
    return (len(text.encode()) + 1) * math.log(_SYMBOLS)


def _counts_code(counts: Sequence[int]) -> float:
    """Return the nats of a sequence of kinds that occur so often, each predicted by those before it."""
    half, total = len(counts) / 2, sum(counts)
    return (
        math.lgamma(half + total)
        - math.lgamma(half)
        - sum(math.lgamma(count + 0.5) - math.lgamma(0.5) for count in counts)
    )
