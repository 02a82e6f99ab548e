"""Random texts, and damage to bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa

PIECES = (
    *("a", "Some words.", "é", "漢字", "😀", "\u00a0", "\u2028", "\ufeff", "\x00", "\x1a", "\x7f", "\ufffd", "İ"),
    *(
        " ",
        "  ",
        "\t",
        "\n",
        "\n\n",
        "\n \n",
        "\r\n",
        "\r",
        "\r\r\n",
        "\x0b",
        "\x0c",
        "[",
        "{",
        '"',
        "\\",
        ",",
        ";",
        "1",
    ),
    *("*** START OF THE PROJECT GUTENBERG EBOOK A ***\n", "*** END OF THE PROJECT GUTENBERG EBOOK A ***\n"),
    *("word,[1,2],3\n", "<html>", '{"text": "x"}\n', "--- \n", "x" * 300),
)
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 1, mtime=0),
    "bz2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zst": lambda data: bytes(pa.compress(data, "zstd", asbytes=True)),
}


def random_text(rng: Random, most: int = 60) -> str:
    """Return a text of at most `most` pieces."""
    few = rng.sample(PIECES, rng.randint(1, 8))
    return "".join(rng.choices(few if rng.random() < 0.5 else PIECES, k=rng.randint(0, most)))


def pack(rng: Random, data: bytes, suffix: str) -> bytes:
    """Compress data in one to three members, with bytes around them that a program may ignore."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2))))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    packed = [COMPRESS[suffix](part) for part in parts]
    return rng.choice((b"", b"", b"", COMPRESS[suffix](b""))).join(packed) + rng.choice(
        (b"",) * 9 + ((bytes(16), b"x") if suffix != "zst" else ())
    )


def damage(rng: Random, data: bytes) -> tuple[bytes, str]:
    """Return altered data, and the name of the damage. Half stays as it is."""
    name = rng.choice(("nothing",) * len(_DAMAGES) + tuple(_DAMAGES))
    return (_DAMAGES[name](rng, data) if name in _DAMAGES else data), name


def _flip(rng: Random, data: bytes) -> bytes:
    altered = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 20)) if data else 0):
        altered[rng.randrange(len(altered))] = rng.randrange(256)
    return bytes(altered)


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _cut_start(rng: Random, data: bytes) -> bytes:
    return data[rng.randrange(len(data) + 1) :]


def _remove(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randrange(50) :]


def _insert(rng: Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    more = rng.choice((bytes(rng.randrange(200)), rng.randbytes(rng.randrange(50)), b"\xef\xbb\xbf", b"\xff", b"\r"))
    return data[:start] + more + data[start:]


def _reencode(rng: Random, data: bytes) -> bytes:
    encoding = rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig", "cp500"))
    return data.decode(errors="replace").encode(encoding, "replace")


_DAMAGES: dict[str, Callable[[Random, bytes], bytes]] = {
    "flip": _flip,
    "cut": _cut,
    "cut the start": _cut_start,
    "remove": _remove,
    "insert": _insert,
    "repeat": lambda rng, data: data * rng.randint(2, 3),
    "empty": lambda rng, data: b"",
    "zeros": lambda rng, data: bytes(len(data)),
    "random": lambda rng, data: rng.randbytes(rng.randrange(300)),
    "encoding": _reencode,
    "line ends": lambda rng, data: data.replace(b"\n", rng.choice((b"\r", b"\r\n", b"\n\r"))),
    "byte order mark": lambda rng, data: rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"+/v8-")) + data,
}


ODD_VALUES: tuple[Any, ...] = (
    *(None, 0, -1, 1, 1.5, 1e308, float("nan"), 10**30, "", "x", "..", "\ud800", [], {}, [1], {"a": 1}, True),
    *("../../x", "a/b", "x" * 3000, [[]], "٣", 2**31, 65_536, "float16"),
)


def alter(rng: Random, value: Any) -> Any:
    """Return a JSON value with a change somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        change = rng.random()
        if change < 0.2:
            return {name: inner for name, inner in value.items() if name != key}
        if change < 0.25:
            return {**value, "odd": rng.choice(ODD_VALUES)}
        return {**value, key: alter(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return [*value[:place], *([alter(rng, value[place])] * rng.choice((0, 1, 1, 1, 2))), *value[place + 1 :]]
    return rng.choice(ODD_VALUES)
