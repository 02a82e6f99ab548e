"""Splits of a corpus, and samples of splits."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.config import TokenizeConfig
from jobs.corpus.byte_ranges import divide_sources
from jobs.corpus.reading import sample_documents
from jobs.lake.uri import to_uri
from jobs.sources.listing import Source


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(1, 40), st.booleans())
def test_ranges_cover_each_byte_once(sizes, split_bytes, whole_files):
    sources = [Source(f"{number:02}", f"file:///{number}", size) for number, size in enumerate(sizes)]
    splits = divide_sources(sources, split_bytes, whole_files)
    parts = [part for split in splits for part in split]
    covered = [(part.source.name, byte) for part in parts for byte in range(part.start, part.end)]
    assert covered == [(source.name, byte) for source in sources for byte in range(source.size)]
    assert {part.source.name for part in parts} == {source.name for source in sources}
    assert all(len(split) == 1 or sum(part.size for part in split) <= split_bytes for split in splits)
    assert all(split_bytes < sum(part.size for part in [*one, next_[0]]) for one, next_ in pairwise(splits))
    assert not whole_files or all(part.start == 0 for part in parts)


def make_sources(tmp_path, num_files):
    data = [f"file {number}: é {'word ' * 50}\n\n".encode() * 300 for number in range(num_files)]
    sources = []
    for number, text in enumerate(data):
        (tmp_path / f"{number:03}.txt").write_bytes(text)
        sources.append(Source(f"{number:03}.txt", to_uri(str(tmp_path / f"{number:03}.txt")), len(text)))
    return sources, b"".join(data)


def sample(sources, share, split_bytes=1 << 20):
    settings = TokenizeConfig()
    splits = divide_sources(sources, split_bytes, whole_files=False)
    return [text for split in splits for text in sample_documents(split, share=share, settings=settings)]


def test_a_sample_of_everything_is_the_text(tmp_path):
    sources, data = make_sources(tmp_path, 3)
    assert sample(sources, 1) == [text.strip() for text in data.split(b"\n\n")][:-1]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("split_bytes", [1 << 14, 1 << 20])
def test_sample_is_even(tmp_path, share, split_bytes):
    sources, data = make_sources(tmp_path, 40)
    found = sample(sources, share, split_bytes)
    assert found == sample(sources, share, split_bytes)
    size = sum(map(len, found))
    assert 0.8 * share * len(data) <= size <= share * len(data)
    assert len({text.split(b":")[0] for text in found if text.startswith(b"file")}) == 40
    assert all(text.decode() for text in found)
