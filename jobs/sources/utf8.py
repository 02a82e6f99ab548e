"""Invalid UTF-8: refused by default; replaced by U+FFFD, and counted, with ``tokenize.invalid_utf8=replace``."""

from __future__ import annotations

from codecs import getincrementaldecoder

from jobs.errors import InputError

REPLACEMENT = "\ufffd"


def replace_invalid(data: bytes) -> tuple[bytes, int]:
    """Return `data` with U+FFFD in place of invalid bytes, and the number of replacements."""
    try:
        data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors="replace")
        return text.encode(), text.count(REPLACEMENT) - data.count(REPLACEMENT.encode())
    return data, 0


def encode_text(text: str | bytes, invalid: str) -> tuple[bytes, int]:
    """Return `text` in UTF-8, and the number of replacements; raise ValueError if `invalid` forbids them."""
    if isinstance(text, bytes):
        if invalid == "replace":
            return replace_invalid(text)
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at its byte {error.start}; set tokenize.invalid_utf8=replace") from None
        return text, 0
    try:
        return text.encode(), 0
    except UnicodeEncodeError as error:
        if invalid != "replace":
            half = f"\\u{ord(text[error.start]):04x}"
            raise ValueError(f"half a surrogate pair ({half}); set tokenize.invalid_utf8=replace") from None
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.encode(), whole.count(REPLACEMENT) - text.count(REPLACEMENT)


class Utf8Check:
    """Checks that the blocks of the file `uri` are UTF-8."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._decoder = getincrementaldecoder("utf-8")()
        self._position = 0

    def add(self, block: bytes) -> None:
        """Check the next block; an empty block ends the file. InputError gives the offset of the first wrong byte."""
        pending = self._decoder.getstate()[0]  # the first bytes of a character that the block before began
        if not pending and block.isascii():  # takes a tenth of the time
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
