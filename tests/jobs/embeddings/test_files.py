"""Files of embeddings: vectors are read bit for bit as they were written, and errors name file and line."""

import struct
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.embeddings.files import Embeddings, read_embeddings, token_names, write_embeddings
from jobs.errors import InputError
from tests.support.handmade import train_tokenizer

AWKWARD = ["Ġking", '"', ",", "Ċ", 'a,"b"', "ü", "\u2028", "NULL", "nan", "Ġ"]


def write(folder, tokens, vectors):
    embeddings = Embeddings(tokens, np.arange(len(tokens)) * 3, np.asarray(vectors, np.float32))
    write_embeddings(folder.as_uri(), embeddings, np.ones(len(tokens), np.int64))
    return embeddings, next(folder.glob("*.csv")), next(folder.glob("*.parquet"))


def strings_of(*values):
    """Return an Arrow array of strings that Arrow does not check to be UTF-8."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(values), binary.buffers())


def assert_equal(read, written):
    assert read.tokens == written.tokens
    assert read.ids.tolist() == written.ids.tolist()
    assert read.vectors.dtype == np.float32
    assert np.array_equal(read.vectors, written.vectors)


def test_awkward_tokens_and_numbers_are_read_back(tmp_path):
    numbers = [0.1, -0.0, 1e-40, 3.4e38, 1 / 3, 1e10, 123456.79, -1e-7, 2, 5e-324]
    written, *files = write(tmp_path, AWKWARD, np.outer(numbers, [1, 0.7]).astype(np.float32))
    for file in files:
        assert_equal(read_embeddings(str(file)), written)
    first, second, *_ = files[0].read_bytes().split(b"\n")
    assert first.replace(b'"', b"") == b"token,id,v0,v1"
    assert second.startswith('"Ġking",0,0.1,'.encode())


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=20, unique=True))
def test_any_token_is_read_back(tmp_path_factory, tokens):
    folder = tmp_path_factory.mktemp("any")
    written, *files = write(folder, tokens, np.random.default_rng(0).normal(size=(len(tokens), 3)))
    for file in files:
        assert_equal(read_embeddings(str(file)), written)


def test_endings_count_in_either_case(tmp_path):
    written, *files = write(tmp_path, ["a", "b"], [[1.5], [2.5]])
    for file in files:
        assert_equal(read_embeddings(str(file.rename(file.with_suffix(file.suffix.upper())))), written)
    (tmp_path / "E.VEC").write_text("1 1\nking 1\n", "utf-8")
    assert read_embeddings(str(tmp_path / "E.VEC")).tokens == ["king"]


def test_a_token_may_be_very_long(tmp_path):
    written, file, _ = write(tmp_path, ["x" * 200_000, "y"], [[1.5], [2.5]])
    assert_equal(read_embeddings(str(file)), written)


def test_tokens_have_the_names_of_the_tokenizer():
    tokenizer = train_tokenizer()
    names = token_names(tokenizer.json)
    assert len(names) == len(set(names)) == tokenizer.vocab_size
    assert names[tokenizer.end_of_text] == "<|endoftext|>"
    assert not any(character.isspace() for name in names for character in name)


def test_word2vec_text(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("2 3\nking 1 2.5 -3e-1\nüber 0 0 1 \n", "utf-8")
    read = read_embeddings(str(path))
    assert read.tokens == ["king", "über"]
    assert read.ids is None
    assert read.vectors.tolist() == [[1, 2.5, np.float32(-0.3)], [0, 0, 1]]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(tmp_path, line_end):
    for name, lines in {
        "a.vec": ["2 1", "king 1", "queen 2"],
        "a.csv": ["token,id,v0", "king,0,1", "queen,1,2"],
    }.items():
        for ending in ("", line_end):
            (tmp_path / name).write_bytes((line_end.join(lines) + ending).encode())
            read = read_embeddings(str(tmp_path / name))
            assert (read.tokens, read.vectors.tolist()) == (["king", "queen"], [[1], [2]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", ":1: the first line must be token,id,v0"),
        ("a.csv", "token,v0\n", ":1: the first line must be"),
        ("a.csv", "token,id,v0,v1\n", "has no vectors"),
        ("a.csv", 'token,id,v0,v1\n"a\nb",1,2,3\nc,2,3\n', ":4: 3 columns, but the first line has 4"),
        ("a.csv", "token,id,v0\na,1,2\nb,2,x\n", ":3: the vector has values that are not numbers"),
        ("a.csv", "token,id,v0\na,1,2\nb,2,nan\n", ":3: the vector of .* is not finite|not finite"),
        ("a.csv", "token,id,v0\na,1,2\nb,2,1\na,3,3\n", ':4: token "a" is already in line 2'),
        ("a.csv", "token,id,v0\na,1,2\nb,1,1\n", ":3: id 1 is already in line 2"),
        ("a.csv", "token,id,v0\na,one,2\n", ":2: 'one' is not a token id"),
        ("a.csv", "token,id,v0\n,1,2\n", ":2: the token has no name"),
        ("a.csv", 'token,id,v0\n"a"b,1,2\n', ":2: not valid CSV"),
        ("a.csv", b"token,id,v0\na,1,2\n\xe9,2,3\n", ":3: not UTF-8"),
        ("a.txt", "king 1 2\n", ":1: the first line must be the number of tokens"),
        ("a.vec", "2 2\na 1 2\nb 1\n", ":3: the size of the vector is 1, but the first line gives 2"),
        ("a.txt", "3 1\na 1\nb 2\n", ":3: the file has 2 tokens, but the first line gives 3"),
        ("a.txt", "2 1\na 1\na 2\n", ':3: token "a" is already in line 2'),
        ("a.parquet", "PAR1", "truncated Parquet file: its end is missing"),
        ("a.parquet", "PAR1" + "x" * 40 + "PAR1", r"damaged Parquet file \("),
        ("a.parquet", "token,id,v0\na,1,2\n", "its content is not Parquet"),
        ("a.json", "{}", "no embeddings there"),
    ],
)
def test_errors_name_the_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_embeddings(str(path))
    assert str(caught.value).startswith(path.as_uri())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"token": ["a"], "id": [1]}, "token, id and vector"),
        (
            {"token": ["a", "b"], "id": [1, 2], "vector": [[1.0, 2.0], [1.0]]},
            "row 2: the size of the vector is 1, but 2 in the first row; write 2 numbers",
        ),
        ({"token": ["a", "b"], "id": [1, 2], "vector": [[1.0], None]}, "row 2: the size of the vector is 0"),
        ({"token": ["a", "a"], "id": [1, 2], "vector": [[1.0], [2.0]]}, 'row 2: token "a" is already in'),
        ({"token": [1], "id": [1], "vector": [[1.0]]}, "row 1: the token has no name"),
        ({"token": ["a"], "id": [1], "vector": [["x"]]}, "row 1: the vector has values that are not numbers"),
        ({"token": ["a"], "id": [1], "vector": [[]]}, "has no vectors"),
        ({"token": ["a"], "id": [1], "vector": [1.5]}, r"row 1: the vector is 1\.5, not a list of numbers"),
        ({"token": ["a"], "id": [1], "vector": [[[1.0, 2.0]]]}, "row 1: the vector is a list of lists"),
        ({"token": ["a"], "id": pa.array([2**50], pa.duration("s")), "vector": [[1.0]]}, "damaged Parquet file"),
        ({"token": strings_of(b"a", b"\xff"), "id": [1, 2], "vector": [[1.0], [2.0]]}, "row 2: the token is not UTF-8"),
        (
            {"token": strings_of(b"a", b"\xff").dictionary_encode(), "id": [1, 2], "vector": [[1.0], [2.0]]},
            "row 2: the token is not UTF-8",
        ),
    ],
)
def test_errors_in_parquet_name_the_row(tmp_path, columns, message):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=message) as caught:
        read_embeddings(str(path))
    assert str(caught.value).startswith(path.as_uri())
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_page_of_parquet_is_found_by_its_checksum(tmp_path):
    path = tmp_path / "a.parquet"
    rows = pa.table({"token": ["a", "b", "c"], "id": [1, 2, 3], "vector": [[1.5], [2.5], [3.5]]})
    pq.write_table(rows, path, write_page_checksum=True, use_dictionary=False, compression="none")
    assert read_embeddings(str(path)).vectors.tolist() == [[1.5], [2.5], [3.5]]
    path.write_bytes(path.read_bytes().replace(struct.pack("<d", 2.5), struct.pack("<d", 2.75)))
    with pytest.raises(InputError, match=r"a\.parquet: damaged Parquet file \(.*CRC"):
        read_embeddings(str(path))


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, partial(pa.list_, list_size=2), pa.list_view])
def test_vectors_may_be_lists_of_any_kind(tmp_path, kind):
    vectors = pa.array([[1.5, 2.5], [3.5, 4.5]], kind(pa.float32()))
    pq.write_table(pa.table({"token": ["a", "b"], "id": [1, 2], "vector": vectors}), tmp_path / "a.parquet")
    assert read_embeddings(str(tmp_path / "a.parquet")).vectors.tolist() == [[1.5, 2.5], [3.5, 4.5]]


def test_a_missing_file_is_an_error(tmp_path):
    for name in ("no.csv", "no"):
        with pytest.raises(InputError, match=f"/{name}: (cannot be read|no embeddings there)"):
            read_embeddings(str(tmp_path / name))
