"""The list of forgotten documents: nothing of it is lost, and a damaged one is never taken for an empty one."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.errors import DamagedError
from jobs.lake import store
from jobs.lake.forgotten import forget, hashes_of, read_forgotten
from jobs.lake.layout import Lake


@pytest.fixture(params=["file", "s3"])
def lake(request, tmp_path):
    return Lake((tmp_path / "my lake").as_uri() if request.param == "file" else request.getfixturevalue("s3_uri"))


def test_a_document_is_forgotten_once_with_its_reason(lake):
    assert read_forgotten(lake) == ()
    [first] = forget(lake, [2**64 - 1, 2**64 - 1], "ann", "asked by the author, é")
    assert (first.hash, first.by, first.why) == (2**64 - 1, "ann", "asked by the author, é")
    [second] = forget(lake, [2**64 - 1, 0], "ben", "wrong")
    assert read_forgotten(lake) == (first, second)
    assert hashes_of(read_forgotten(lake)) == (0, 2**64 - 1)
    assert forget(lake, [0], "ann", "again") == ()
    assert read_forgotten(lake) == (first, second)


def test_programs_that_forget_at_once_lose_nothing(tmp_path):
    lake = Lake(tmp_path.as_uri())  # moto's conditional writes are not atomic
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda number: forget(lake, [number, 100], f"user {number}", "why"), range(4)))
    assert hashes_of(read_forgotten(lake)) == (0, 1, 2, 3, 100)
    assert sum(len(new) for new in done) == 5


@pytest.mark.parametrize("content", [b"", b"[]", b'{"documents": [{"hash": "x"}]}', b'{"documents": [7]}'])
def test_a_damaged_list_stops_the_run(tmp_path, content):
    lake = Lake(tmp_path.as_uri())
    store.write_bytes(lake.forgotten, content)
    for use in (read_forgotten, lambda lake: forget(lake, [1], "ann", "why")):
        with pytest.raises(DamagedError, match=r"forgotten/documents\.json.*delete it and forget the documents again"):
            use(lake)
    assert store.read_bytes(lake.forgotten) == content
