"""Files ``tokenizer.json`` of other projects' kinds, with changed values or damaged bytes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random

from jobs.lake import store
from jobs.tokenizer.tokenizer import Tokenizer
from tests.fuzz.damage import alter, damage, random_text
from tests.fuzz.registry import Case, family
from tests.support.datasets import Pipeline
from tests.support.foreign import FAST, SLOW, make

_made = cache(make)


@family("tokenizer")
def _tokenizer(rng: Random, folder: Path) -> Case:
    """Texts, encoded and decoded by a tokenizer that the user gives; or the whole tokenize step."""
    name = rng.choice((*FAST, *SLOW))
    data, how = _made(name), "nothing"
    if rng.random() < 0.7:
        values = json.loads(data)
        for _ in range(rng.choice((1, 1, 2, 4))):
            values = alter(rng, values)
        data, how = json.dumps(values).encode(), "values changed"
    elif rng.random() < 0.8:
        data, how = damage(rng, data)
    path = folder / "my tokenizer.json"
    path.write_bytes(data)
    texts = [random_text(rng, 20) for _ in range(3)]
    if is_step := rng.random() < 0.2:
        (folder / "t.txt").write_text("\n\n".join(texts), "utf-8")

    def encode() -> None:
        tokenizer = Tokenizer(store.read_bytes(path.as_uri()), path.as_uri())
        assert all("\n" not in remark for remark in tokenizer.remarks()), "a remark of several lines"
        ids, offsets = tokenizer.encode_batch([text.encode() for text in texts], parallel=False)
        assert offsets[-1] == len(ids), "offsets"
        tokenizer.decode(ids.tolist())

    if not is_step:
        return Case(f"{name}, {how}; {data[-300:]!r}; {texts}", encode)
    pipeline = Pipeline((folder / "lake").as_uri(), (folder / "t.txt").as_uri(), tokenize__tokenizer=str(path))
    return Case(f"{name}, {how}; {data[-300:]!r}; {texts}; tokenize", pipeline.tokenize, folder / "lake")
