"""Refuses invalid UTF-8, or replaces it by U+FFFD and counts it (``tokenize.invalid_utf8``)."""

from __future__ import annotations

from codecs import getincrementaldecoder

from jobs.errors import InputError

REPLACEMENT = "\ufffd"


def replace_invalid(data: bytes) -> tuple[bytes, int]:
    """Return `data` with each invalid sequence of bytes replaced by U+FFFD, and the number of replacements."""
    try:
        data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
        return text.encode(), text.count(REPLACEMENT) - data.count(REPLACEMENT.encode())
    return data, 0


def encode_text(text: str | bytes, invalid: str) -> tuple[bytes, int]:
    """Return `text` in UTF-8, and the number of invalid parts that were replaced by U+FFFD.

    Raise ValueError if `text` has an invalid part and `invalid` is not ``replace``.
    """
    if isinstance(text, bytes):
        if invalid == "replace":
            return replace_invalid(text)
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"the text is not UTF-8 at its byte {error.start}; set tokenize.invalid_utf8=replace"
            ) from None
        return text, 0
    try:
        return text.encode(), 0
    except UnicodeEncodeError as error:
        if invalid != "replace":
            half = f"\\u{ord(text[error.start]):04x}"
            raise ValueError(
                f"the text has half of a surrogate pair ({half}); set tokenize.invalid_utf8=replace"
            ) from None
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.encode(), whole.count(REPLACEMENT) - text.count(REPLACEMENT)


class Utf8Check:
    """Checks that the content of the file `uri` is UTF-8, block by block."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._decoder = getincrementaldecoder("utf-8")()
        self._position = 0

    def add(self, block: bytes) -> None:
        """Check the next block. An empty block ends the file.

        Raises:
            InputError: with the offset of the first invalid byte.
        """
        pending = self._decoder.getstate()[0]  # the first bytes of a character that began in the previous block
        if not pending and block.isascii():  # faster than decoding
            self._position += len(block)
            return
        start = self._position - len(pending)
        try:
            self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            where = f"byte {start + error.start} (0x{error.object[error.start]:02x})"
            raise InputError(
                f"{self._uri}: not UTF-8 at {where}; convert the file to UTF-8, or set tokenize.invalid_utf8=replace"
            ) from None
        self._position += len(block)
