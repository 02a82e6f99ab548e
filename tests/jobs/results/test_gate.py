"""The gate before promotion: its error rate, its power, and what it refuses whatever the champion is."""

import math
from random import Random

import pytest

from jobs.config.sections.promotion import PromotionConfig
from jobs.results import gate
from jobs.results.scores import DocumentScore, Scores

SETTINGS = PromotionConfig()
GOOD = gate.TextQuality(0.1, 0.0)


def scores_of(pairs, number=0, **changes):
    documents = tuple(
        DocumentScore(f"{index:064x}", 100, challenger, champion) for index, (challenger, champion) in enumerate(pairs)
    )
    return Scores(f"model {number}", "champion", "1", "nats", documents, **changes)


def drawn(random, count, gain, size_spread=1.2, spread=0.03):
    """Return losses of documents of very different sizes and difficulty; both models differ by chance in each."""
    for _ in range(count):
        size = math.exp(random.gauss(5, size_spread))
        loss = size * random.uniform(1.5, 3)
        yield (loss * (1 - gain) * math.exp(random.gauss(0, spread)), loss * math.exp(random.gauss(0, spread)))


def promoted(scores, settings=SETTINGS):
    return not gate.why_champion_stays(scores, gate.measure_gain(scores, settings.error_rate), settings)


@pytest.mark.long
@pytest.mark.parametrize(("count", "size_spread"), [(25, 0.2), (100, 1.2), (400, 1.2)])
def test_an_equal_model_is_promoted_no_more_often_than_the_error_rate_says(count, size_spread, monkeypatch):
    monkeypatch.setattr(gate, "RESAMPLES", 200)
    random, settings = Random(count), PromotionConfig(error_rate=0.1, least_gain=0)
    gates = (scores_of(drawn(random, count, 0.0, size_spread), number) for number in range(200))
    number = sum(promoted(scores, settings) for scores in gates)
    # The number is binomial: with a rate of 0.1 it is above 32 with a probability of 0.002.
    assert number <= 32
    assert number >= 5  # a test that never promotes holds any rate


def test_a_model_that_is_better_by_2_percent_is_promoted(monkeypatch):
    monkeypatch.setattr(gate, "RESAMPLES", 200)
    random = Random(1)
    assert sum(promoted(scores_of(drawn(random, 500, 0.02), number)) for number in range(100)) >= 95


def test_the_same_model_stays_and_a_gain_that_is_not_worth_a_change_too():
    same = [(100.0 + index, 100.0 + index) for index in range(50)]
    gain = gate.measure_gain(scores_of(same), 0.05)
    assert (gain.value, gain.lower) == (0, 0)
    assert "is 0.00% lower" in gate.why_champion_stays(scores_of(same), gain, SETTINGS)
    little = scores_of([(champion * 0.9999, champion) for _, champion in same])
    assert "is 0.01% lower" in gate.why_champion_stays(little, gate.measure_gain(little, 0.05), SETTINGS)
    much = scores_of([(champion * 0.99, champion) for _, champion in same])
    assert promoted(much)


def test_a_retry_decides_in_the_same_way():
    scores = scores_of(list(drawn(Random(3), 60, 0.01)))
    assert gate.measure_gain(scores, 0.05) == gate.measure_gain(scores, 0.05)
    assert gate.measure_gain(scores, 0.01).lower < gate.measure_gain(scores, 0.05).lower


def test_few_documents_and_a_champion_without_scores_keep_the_champion():
    few = scores_of([(70.0 + index % 3, 100.0) for index in range(gate.LEAST_DOCUMENTS - 1)])
    assert gate.why_champion_stays(few, gate.measure_gain(few, 0.05), SETTINGS) == (
        "the evaluation set has 19 documents, which weigh as much as 19 of equal size, but a comparison needs 20"
    )
    uneven = scores_of([(700_000.0, 1_000_000.0), *[(70.0 + index % 3, 100.0) for index in range(100)]])
    assert "which weigh as much as 1 of equal size" in gate.why_champion_stays(
        uneven, gate.measure_gain(uneven, 0.05), SETTINGS
    )
    one = scores_of([(50.0, 100.0)])
    assert "has 1 document," in gate.why_champion_stays(one, gate.measure_gain(one, 0.05), SETTINGS)
    without = scores_of([(1.0, None)] * 30, not_compared="the champion predicts embeddings")
    assert gate.measure_gain(without, 0.05) is None
    assert gate.why_champion_stays(without, None, SETTINGS) == "the champion predicts embeddings"


def rows(*texts, prompt="a"):
    return [{"prompt": prompt, "text": text, "tokens": list(text.encode())} for text in texts]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": scores_of([(None, 1.0)])}, "its loss of document 000000000000 is not finite"),
        ({"scores": scores_of([(math.inf, 1.0)])}, "its loss of document 000000000000 is not finite"),
        ({"baselines": {"unigram": (5.0, 5.0)}}, "its validation loss 5.0000 is not below the unigram baseline 5.0000"),
        ({"baselines": {"bigram": (math.nan, 5.0)}}, "its validation loss nan is not below the bigram baseline 5.0000"),
        ({"text": gate.measure_text(rows("abababababab"), (), 0.5)}, "78% of the 4-grams of its samples repeat"),
        ({"text": gate.measure_text(rows("<unk> <unk>"), (), 1)}, "18% of the tokens of its samples are <unk>"),
        ({"text": gate.measure_text(rows("fine"), ("b",), 0.5)}, "it continues the canary prompt 'b' with nothing"),
        ({"text": gate.measure_text(rows(" ", prompt="b"), ("b",), 0.5)}, "the canary prompt 'b' with nothing"),
    ],
)
def test_a_model_that_is_no_good_is_refused_whatever_the_champion_is(change, message):
    given = {"scores": scores_of([(1.0, 2.0)]), "text": GOOD, "baselines": {"unigram": (4.0, 5.0)}, **change}
    settings = PromotionConfig(max_unknown=0.1)
    assert message in gate.why_unfit(**given, settings=settings)


def test_a_good_model_is_not_refused():
    text = gate.measure_text([*rows("to be or not"), *rows("fine text", "", prompt="b")], ("b",), 0.5)
    assert (text.repetition, text.unknown, text.bad_prompts) == (0, 0, ())
    assert gate.why_unfit(scores_of([(1.0, 2.0)]), text, {"unigram": (4.0, 5.0)}, SETTINGS) == ""
