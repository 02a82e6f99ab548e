"""The steps of a run are the same whether its configuration is resolved, or read as it is stored."""

import json
from itertools import product

import pytest

from jobs.config import resolve
from jobs.results.summary import planned_steps


@pytest.mark.parametrize(("split", "enabled", "embeds"), product(["auto", "fixed"], [True, False], [True, False]))
def test_steps_of_a_stored_configuration(split, enabled, embeds):
    settings = {"windows.split": split, "promotion.enabled": enabled}
    if embeds:
        settings |= {"train.embeddings": "embed", "embed.size": 64}
    config = resolve("corpus", "tiny", settings)
    stored = json.loads(config.to_json())
    assert planned_steps(stored, {}) == config.steps
    assert ("score" in config.steps) == (split == "fixed" and enabled)
    assert ("embed" in config.steps) == embeds
    for task in ("generate", "evaluate"):
        used = resolve("corpus", "tiny", {**settings, "use.model": "champion", "use.task": task})
        assert planned_steps(json.loads(used.to_json()), {}) == used.steps == (task,)
    assert planned_steps({}, {}) == ("tokenize", "windows", "train", "generate")  # of an earlier version
    assert planned_steps({}, {"score": {}})[-1] == "score"
