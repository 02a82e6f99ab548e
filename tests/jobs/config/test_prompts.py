"""Prompts from a file."""

import pytest

from jobs.config import GenerateConfig
from jobs.config.prompts import read_prompts
from jobs.errors import InputError
from jobs.lake import store


def prompts_of(path, data, unit="line"):
    path.write_bytes(data)
    return read_prompts(GenerateConfig(prompts_file=str(path), prompt_unit=unit), store.read_bytes)


def test_prompts_come_from_the_configuration_without_a_file():
    assert read_prompts(GenerateConfig(prompts=("a", "b")), store.read_bytes) == ("a", "b")


@pytest.mark.parametrize(
    ("data", "prompts"),
    [
        (b"one\ntwo", ("one", "two")),
        (b"one\r\n\r\ntwo \r\n", ("one", "", "two ")),
        ("nächtlich\u2028still\n".encode(), ("nächtlich\u2028still",)),
        (b"one\rtwo\r\nthree\n\rfour\r", ("one", "two", "three", "", "four")),
        (b"\n", ("",)),
        (b"\xef\xbb\xbfone\n", ("one",)),
    ],
)
def test_a_text_file_has_a_prompt_in_each_line(tmp_path, data, prompts):
    assert prompts_of(tmp_path / "my prompts.txt", data) == prompts


@pytest.mark.parametrize(
    ("data", "prompt"),
    [(b"one\r\n\r\ntwo\r\n", "one\n\ntwo"), (b"\xef\xbb\xbfone\n\n", "one\n"), (b"one", "one"), (b"\n", "")],
)
def test_a_whole_text_file_is_one_prompt(tmp_path, data, prompt):
    assert prompts_of(tmp_path / "seed.txt", data, "file") == (prompt,)
    with pytest.raises(InputError, match="holds no prompt"):
        prompts_of(tmp_path / "empty.txt", b"", "file")


def test_a_jsonl_file_has_a_prompt_in_each_line(tmp_path):
    assert prompts_of(tmp_path / "p.jsonl", b'{"prompt": "two\\nlines"}\n\n{"prompt": ""}') == ("two\nlines", "")


@pytest.mark.parametrize("name", ["P.JSONL", "p.ndjson"])
def test_the_ending_of_a_file_of_records(tmp_path, name):
    assert prompts_of(tmp_path / name, b'{"prompt": "a"}\r\n{"prompt": "b"}') == ("a", "b")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("p.txt", b"", "holds no prompt"),
        ("p.jsonl", b"\n", "holds no prompt"),
        ("p.txt", b"caf\xe9", "not UTF-8 at byte 3"),
        ("p.jsonl", b'{"prompt": "a"}\n{"text": "b"}', "line 2"),
        ("p.jsonl", b'{"prompt": 3}', "line 1"),
        ("p.jsonl", b"prompt", "line 1"),
        ("p.txt", "one\ntwo".encode("utf-16-le"), "holds NUL, as text in UTF-16 does"),
        ("p.jsonl", b"[" * 100_000, "line 1"),
        ("p.jsonl", rb'{"prompt": "a\ud800"}', "half of a surrogate pair"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, name, data, message):
    with pytest.raises(InputError, match=message) as caught:
        prompts_of(tmp_path / name, data)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read"):
        read_prompts(GenerateConfig(prompts_file=str(tmp_path / "nowhere.txt")), store.read_bytes)
