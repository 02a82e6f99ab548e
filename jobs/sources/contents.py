"""Refuses files whose first bytes show another format than the file's name, or text in UTF-16 or UTF-32."""

from __future__ import annotations

import json
import re
import unicodedata

from jobs.errors import InputError
from jobs.sources.names import NAMES_WITH_TEXT, text_ending

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_SAMPLE_BYTES = 1 << 16
_BINARY_SHARE = 0.1
"""Content counts as binary if at least this share of its bytes is NUL. UTF-8 text normally has no NUL bytes."""

_UNPACK = f"unpack it, or rename it to match its content: {NAMES_WITH_TEXT}"
_CONVERT = "convert it to plain text first"
_EXPORT = "export its text as .jsonl or .parquet"
_REMOVE = "leave it out of the corpus"
_SIGNATURES = {
    _UNPACK: {
        "gzip": rb"\x1f\x8b\x08",
        "bzip2": rb"BZh[1-9]1AY&SY",
        "zstd": rb"\x28\xb5\x2f\xfd",
        "xz": rb"\xfd7zXZ\0",
        "lz4": rb"\x04\x22\x4d\x18",
        "snappy": rb"\xff\x06\0\0sNaPpY",
        "compress (.Z)": rb"\x1f\x9d",
        "7-Zip": rb"7z\xbc\xaf\x27\x1c",
        "RAR": rb"Rar!\x1a\x07",
        "tar": rb"(?=[^\0]{1,100}\0).{257}ustar[\0 ]",
        "ar": rb"!<arch>\n",
    },
    _CONVERT: {
        "PDF": rb"%PDF-\d",
        "PostScript": rb"%!PS",
        "RTF": rb"\{\\rtf",
        "DjVu": rb"AT&TFORM",
        "an Office document": rb"PK\x03\x04.{26,60}(?:\[Content_Types\]\.xml|_rels/|docProps/|word/|xl/|ppt/)",
        "an EPUB book": rb"PK\x03\x04.{26}mimetypeapplication/epub",
        "an OpenDocument file": rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis",
        "an old Office document": rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    },
    _EXPORT: {
        "Arrow": rb"ARROW1\0",
        "ORC": rb"ORC.{0,200}\0",
        "Avro": rb"Obj\x01",
        "HDF5": rb"\x89HDF\r\n\x1a\n",
        "SQLite": rb"SQLite format 3\0",
        "NumPy": rb"\x93NUMPY",
        "a Python pickle": rb"\x80[\x02-\x05][^\s]",
    },
    _REMOVE: {
        "PNG": rb"\x89PNG\r\n\x1a\n",
        "JPEG": rb"\xff\xd8\xff",
        "GIF": rb"GIF8[79]a.{0,9}\0",
        "TIFF": rb"II\*\0|MM\0\*",
        "RIFF (WAV, AVI or WebP)": rb"RIFF.{4}(?:WAVE|AVI |WEBP)",
        "MP3": rb"ID3[\x02-\x04]",
        "MP4": rb"\0\0.{2}ftyp",
        "Ogg": rb"OggS\0",
        "FLAC": rb"fLaC\0",
        "a program": rb"\x7fELF|\xca\xfe\xba\xbe|MZ.{56}\0",
        "GGUF": rb"GGUF[\x01-\x09]\0",
        "safetensors": rb".{6}\0\0\{",
    },
}
_ZIP = re.compile(rb"PK(?:\x03\x04|\x05\x06)")
_PARQUET = re.compile(rb"PAR1\x15")
_KINDS = [
    (kind, re.compile(pattern, re.DOTALL), remedy)
    for remedy, patterns in _SIGNATURES.items()
    for kind, pattern in patterns.items()
] + [("zip", _ZIP, _UNPACK), ("Parquet", _PARQUET, "rename it to .parquet")]
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_ENCODINGS = {"utf-32-le": (4, 0), "utf-32-be": (4, 3), "utf-16-le": (2, 0), "utf-16-be": (2, 1)}
"""For each encoding: the size of a code unit in bytes, and the index of the least significant byte in the unit."""
_ARRAY = re.compile(rb'\s*\[\s*\{\s*(?:"(?:[^"\\\n]|\\.)*"\s*:|\})')
_MARKUP = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body|\?xml)\b", re.IGNORECASE)


def refuse_other_content(uri: str, name: str, beginning: bytes, field: str) -> None:
    """Refuse a file that would be read as text or JSONL, but whose content begins like another format.

    Args:
        uri: The URI of the file, for the message.
        name: The name of the file in the corpus, which shows its format.
        beginning: The first bytes of the decompressed content.
        field: The field of JSON records that holds the text.

    Raises:
        InputError: if the content has another format. The message says which, and what to do.
    """
    for kind, signature, remedy in _KINDS:
        if signature.match(beginning):
            raise InputError(f"{uri}: its content is {kind}, not text; {remedy}")
    if encoding := _wide_encoding(beginning):
        raise InputError(
            f"{uri}: not UTF-8 at byte 0 (0x{beginning[0]:02x}), it looks like {encoding.upper()}; convert it to UTF-8,"
            f" for example with iconv -f {encoding.upper()} -t UTF-8"
        )
    if num_nul := nul_bytes_if_binary(beginning):
        raise InputError(
            f"{uri}: its content is binary, not text: {num_nul:,} of its first {len(beginning):,} bytes are NUL;"
            f" {_REMOVE}"
        )
    text = beginning.removeprefix(BYTE_ORDER_MARK)
    if _ARRAY.match(text):
        raise InputError(
            f"{uri}: its content is a JSON array of objects; write each object on a line of its own in a .jsonl file,"
            " for example with jq -c '.[]'"
        )
    if not text_ending(name) and _is_record(text.partition(b"\n")[0], field):
        raise InputError(
            f"{uri}: begins with a JSON record that has the field '{field}'; rename the file to .jsonl,"
            " or to .txt to read it as plain text"
        )


def nul_bytes_if_binary(block: bytes) -> int:
    """Return the number of NUL bytes in a block if their share shows that the block is binary. Otherwise return 0."""
    num_nul = block.count(b"\0")
    return num_nul if num_nul >= max(1, len(block) * _BINARY_SHARE) else 0


def is_markup(beginning: bytes) -> bool:
    """Return whether a file begins as HTML or XML. Such text is trained on with its tags."""
    return _MARKUP.match(beginning.removeprefix(BYTE_ORDER_MARK)) is not None


def _wide_encoding(beginning: bytes) -> str | None:
    """Return the encoding of UTF-16 or UTF-32 text, with or without a byte order mark. Return None for other bytes."""
    sample = beginning[:_SAMPLE_BYTES]
    for mark, encoding in _MARKS.items():
        if sample.startswith(mark):
            return encoding
    num_nul = sample.count(b"\0")
    if num_nul < max(1, len(sample) * _BINARY_SHARE) and num_nul < max(8, len(sample) / 200):
        return None  # in UTF-16, spaces and line ends alone would give more NUL bytes
    return next((encoding for encoding, unit in _ENCODINGS.items() if _is_in(sample, encoding, *unit)), None)


def _is_in(sample: bytes, encoding: str, size: int, low: int) -> bool:
    """Return whether nearly all of a sample is text in `encoding`.

    `size` and `low` are the values of `_ENCODINGS` for this encoding.
    """
    sample = sample[: len(sample) // size * size]
    if not sample or sample[low::size].count(b"\0") * 5 > sample.count(b"\0"):
        return False
    text = sample.decode(encoding, "replace")
    num_written = sum(unicodedata.category(letter)[0] in "LMNPSZ" or letter in "\t\n\r" for letter in text)
    return num_written - text.count("\ufffd") >= 0.9 * len(text)


def _is_record(line: bytes, field: str) -> bool:
    """Return whether a line is a JSON object that has the field `field`."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and field in record
