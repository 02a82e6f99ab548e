"""Files of tokenizers with random changes: refused in one line, or encoded as Hugging Face `tokenizers` does."""

import copy
import json
import random
from itertools import pairwise

import pytest
import tokenizers

from jobs.errors import InputError
from jobs.tokenizer.tokenizer import Tokenizer
from tests.support.foreign import END_OF_TEXT, make, texts

CASES = 60  # for each tokenizer; 10,000 were tried once
VALUES = [None, True, 0, 1, -1, 2**20, 2**31, 2**70, 1.5, "", "a", "Ġ", "##", END_OF_TEXT, [], {}, [[]], [None]]
VALUES += ["Isolated", "ByteLevel", "BPE", "Unigram", "Sequence", {"type": "Sequence"}, {"type": "NFC"}]


def places(values, path=()):
    """Yield the path of each value in a file; of a vocabulary, the first few."""
    items = list(values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ())
    for key, value in items[:30]:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(values, draw):
    """Return a file's content in which one to two values are left out, replaced or repeated."""
    values = copy.deepcopy(values)
    for _ in range(draw.randint(1, 2)):
        *path, last = draw.choice(list(places(values)))
        parent = values
        for key in path:
            parent = parent[key]
        how = draw.choice(["remove", "replace", "replace", "repeat"])
        if how == "remove":
            del parent[last]
        elif how == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        else:
            parent[last] = copy.deepcopy(draw.choice(VALUES))
    return json.dumps(values).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GPT-2", "Llama 3", "Llama 2", "call-time settings", "Unigram", "WordPiece", "words"])
def test_changed_files(name, capfd):
    draw, given, sample = random.Random(name), json.loads(make(name)), texts(25)
    num_opened, refusals = 0, []
    for _ in range(CASES):
        data = changed(given, draw)
        try:
            tokenizer = Tokenizer(data, "my.json")
            remarks = tokenizer.remarks()
            ids, offsets = tokenizer.encode_batch([text.encode() for text in sample], parallel=False)
        except InputError as error:
            refusals.append(str(error))
            continue
        num_opened += 1
        reference = tokenizers.Tokenizer.from_str(tokenizer.json.decode())
        found = [ids[start:end].tolist() for start, end in pairwise(offsets)]
        assert found == [one.ids for one in reference.encode_batch_fast(sample)], data
        assert tokenizer.decode(found[1]) == reference.decode(found[1], skip_special_tokens=False)
        assert "\n" not in "".join(remarks)
    assert "\n" not in "".join(refusals)
    assert 3 < num_opened < CASES - 3
    assert capfd.readouterr() == ("", "")  # native code reports a panic itself
