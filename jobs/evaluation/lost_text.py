"""Measures how much of a text is lost in tokenization: the nats that are needed to restore the text from the tokens.

These nats are added to the loss of a model, so that a vocabulary that loses more text has no advantage. They are the
length of a code from which, together with the tokens, the text could be restored. The code has three parts:

- a piece of text that became the unknown token: each of its bytes and its end, as one of 257 equally likely symbols;
- the text between two tokens (a gap), such as the whitespace that word tokens lose: which of four kinds the gap is
  (nothing, a space, a line end, other), predicted from the kinds of earlier gaps in the document. Gaps of the kind
  "other" also need their bytes, as above;
- letters that became lower case: whether each letter was upper case, predicted from the letters before it.

Kinds and cases are predicted by the estimator of Krichevsky and Trofimov (1981). Tokens that decode to exactly their
text lose nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from jobs.tokenizer.definition import parts_of
from jobs.tokenizer.tokenizer import TokenIds, Tokenizer

_SYMBOLS = 257
_GAPS = ("", " ", "\n")


def lost_text_nats(text: str, ids: TokenIds, tokenizer: Tokenizer) -> float:
    """Return the nats that are needed to restore `text` from its token `ids`. Return 0 if they decode to `text`."""
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
    """Return the nats that are needed to encode a sequence of kinds. `counts` says how often each kind occurs in it.

    Each element is predicted from the elements before it.
    """
    half, total = len(counts) / 2, sum(counts)
    return (
        math.lgamma(half + total)
        - math.lgamma(half)
        - sum(math.lgamma(count + 0.5) - math.lgamma(0.5) for count in counts)
    )
