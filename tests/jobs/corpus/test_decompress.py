"""Compressed files as gzip, bzip2, xz and zstd themselves take them; what they refuse is named truly."""

import bz2
import gzip
import io
import lzma
import random

import pytest
from backports import zstd

from jobs.corpus import decompress
from jobs.corpus.decompress import open_decompressed
from jobs.errors import InputError

TEXT = b"All happy families are alike.\n" * 40


COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}
SKIPPED = b"\x52\x2a\x4d\x18\x04\0\0\0skip"


@pytest.fixture(params=COMPRESS)
def suffix(request):
    return request.param


def read(data, suffix):
    with open_decompressed(io.BufferedReader(io.BytesIO(data)), suffix, "file:///a") as stream:
        return stream.read(), stream.raw.ignored_bytes


def test_members_are_joined(suffix):
    member, empty = COMPRESS[suffix](TEXT), COMPRESS[suffix](b"")
    assert read(member, suffix) == (TEXT, 0)
    assert read(empty + member + empty + empty + member + empty, suffix) == (TEXT * 2, 0)
    assert read(empty, suffix) == read(b"", suffix) == (b"", 0)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 1 << 18])
def test_blocks_of_any_size(suffix, chunk_bytes, monkeypatch):
    monkeypatch.setattr(decompress, "_CHUNK_BYTES", chunk_bytes)
    texts = [random.Random(seed).randbytes(seed * 70) for seed in range(9)]
    assert read(b"".join(map(COMPRESS[suffix], texts)), suffix) == (b"".join(texts), 0)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_what_follows_the_last_member_is_ignored_and_counted(suffix, monkeypatch):
    for chunk_bytes in (5, 1 << 18):
        monkeypatch.setattr(decompress, "_CHUNK_BYTES", chunk_bytes)
        member = COMPRESS[suffix](TEXT)
        assert read(member + bytes(5000), suffix) == (TEXT, 0)
        assert read(member + bytes(512) + member, suffix) == (TEXT * 2, 0)
        assert read(member + bytes(8) + b"garbage" * 99, suffix) == (TEXT, 693)
        assert read(member + b"!", suffix) == (TEXT, 1)
        with pytest.raises(
            InputError, match=rf"damaged \.{suffix} file \(bytes that are not compressed data lie between its members\)"
        ):
            read(member + b"garbage" * 99 + member, suffix)


def test_a_truncated_file_is_said_to_be_truncated(suffix):
    member = COMPRESS[suffix](TEXT)
    for data in (member[:-1], member[: len(member) // 2], member[:3], member * 2 + member[:-1]):
        with pytest.raises(InputError, match=rf"file:///a: truncated \.{suffix} file: its end is missing"):
            read(data, suffix)


def test_a_damaged_file_is_said_to_be_damaged(suffix):
    text = random.Random(0).randbytes(3000)
    checked = zstd.compress(text, options={zstd.CompressionParameter.checksum_flag: 1})
    member = bytearray(checked if suffix == "zst" else COMPRESS[suffix](text))
    for place in {"gz": (len(member) // 2, -3), "zst": (-1,)}.get(suffix, (len(member) // 2,)):
        member[place] ^= 0xFF
        with pytest.raises(InputError, match=rf"damaged \.{suffix} file \("):
            read(bytes(member) + COMPRESS[suffix](TEXT), suffix)


def test_another_content_is_not_said_to_be_damaged(suffix):
    others = [b"plain text", b"short", *(pack(TEXT) for name, pack in COMPRESS.items() if name != suffix)]
    for data in others:
        with pytest.raises(InputError, match=rf"its content is not \w+, though its name ends in \.{suffix}"):
            read(data, suffix)


def test_zstd_refuses_what_follows():
    for rest in (b"garbage", bytes(512)):
        with pytest.raises(InputError, match="bytes that are not zstd follow a complete frame"):
            read(COMPRESS["zst"](TEXT) + rest, "zst")


def test_zstd_with_a_dictionary_is_not_said_to_be_damaged():
    dictionary = zstd.train_dict([b"All happy families are alike, number %d.\n" % number for number in range(999)], 512)
    member = zstd.compress(TEXT, zstd_dict=dictionary)
    for data in (member, SKIPPED + member, COMPRESS["zst"](TEXT) + member):
        with pytest.raises(
            InputError, match=r"file:///a: compressed with a dictionary.*; decompress it with zstd -d -D"
        ):
            read(data, "zst")


@pytest.mark.parametrize("window", [27, 28, 31])
def test_long_windows(window):
    far = random.Random(0).randbytes(1 << 16)
    text = far + bytes(3 << 20) + far
    options = {zstd.CompressionParameter.window_log: window, zstd.CompressionParameter.checksum_flag: 1}
    compressor = zstd.ZstdCompressor(options=options)  # a stream of unknown size has the whole window
    long = compressor.compress(text) + compressor.flush()
    if window > 27:
        with pytest.raises(zstd.ZstdError, match="too much memory"):
            zstd.decompress(long)
    assert read(long, "zst") == (text, 0)
    pack = COMPRESS["zst"]
    assert read(pack(TEXT) + SKIPPED + long + SKIPPED + pack(b"") + pack(TEXT), "zst") == (TEXT + text + TEXT, 0)
    with pytest.raises(InputError, match=r"truncated \.zst file"):
        read(long[:-7], "zst")
    with pytest.raises(InputError, match=r"damaged \.zst file|not zstd"):
        read(long[:-700] + bytes(100) + long[-600:], "zst")
