"""The fixed split: over many nights nothing moves and nothing leaks, whatever comes, goes, races or crashes."""

import random
import re

import numpy as np
import pytest

from jobs.datasets import encoding, fixed_sides, fixed_split
from jobs.datasets.fixed_sides import LEFT_OUT, VALID, read_decisions
from jobs.datasets.fixed_split import decide_sides
from jobs.datasets.shards import TokenShard
from jobs.embeddings.files import read_embeddings
from jobs.errors import InputError
from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.layout import Pipeline as PipelineFolders
from jobs.lake.store import list_files
from jobs.pipeline import start_run
from jobs.steps import embed
from tests.support.datasets import TravelEngine
from tests.support.growing import Nights, edited, line, lines, texts_of
from tests.support.prose import prose


@pytest.mark.long
def test_nothing_moves_in_a_month_of_nights_of_daily_files(local):
    nights = Nights(local)
    known = np.zeros(0, np.uint64)
    for day in range(28):  # the 20th file turned `auto` from blocks to files
        nights.write(**{f"day-{day:02}": lines(1000 * day)})
        if day == 7:
            nights.delete("day-03")
        if day == 11:  # a file is renamed and split, another one comes back
            nights.delete("day-05")
            nights.write(another=lines(5000, 15), third=lines(5015, 25), **{"day-03": lines(3000)})
        if day == 15:
            nights.write(aaa=lines(77_000))  # a file that is the first one from now on
        before = nights.decisions.sides_of(known)
        night = nights.run()
        assert np.array_equal(nights.decisions.sides_of(known), before)
        assert night.stats["split"] == "fixed"
        hashes = [TokenShard.open(night.tokens.uri, entry).hash for entry in night.tokens.shards]
        known = np.union1d(known, np.concatenate(hashes))
    assert (nights.decisions.sides_of(known) <= VALID).all()
    assert len(known) == 29 * 40
    assert len(nights.validated) > 150
    assert night.stats["valid_window_share"] == pytest.approx(0.2, abs=0.03)
    assert len(nights.decisions.files) < 20  # small files are merged


def test_nearly_equal_documents_are_on_one_side_on_whatever_night_they_come(local):
    texts = [line(seed, 120) for seed in range(40)]
    nights = Nights(local)
    nights.write(a=b"\n".join(texts), b=b"\n".join(map(edited, texts[:20])))
    assert nights.run().stats["new_duplicate_share"] == 20 / 60
    nights.write(c=b"\n".join(edited(text, 50) for text in texts), d=lines(1000))
    assert nights.run().stats["new_duplicate_share"] == 40 / 80
    assert all(nights.side(text) == nights.side(edited(text, 50)) for text in texts)
    assert {nights.side(text) for text in texts} == {0, 1}


def test_a_document_near_to_both_sides_is_left_out_and_counted(local):
    texts = [line(seed, 80) for seed in range(40)]
    nights = Nights(local)
    # Both versions are near to the text, but most are not near to each other, so they are drawn apart.
    versions = [(edited(edited(text, 5), 20), edited(edited(text, 50), 70)) for text in texts]
    nights.write(a=b"\n".join(version for pair in versions for version in pair))
    nights.run()
    apart = [nights.side(one) != nights.side(other) for one, other in versions]
    nights.write(b=b"\n".join(texts))
    night = nights.run()
    found = [nights.side(text) for text in texts]
    left_out = [i for i, side in enumerate(found) if side == LEFT_OUT]
    assert len(left_out) == night.stats["num_left_out_documents"] == night.stats["num_new_left_out_documents"]
    assert len(left_out) >= 3
    assert all(apart[i] for i in left_out)
    for i in left_out:
        assert texts[i].decode() not in nights.trained | nights.validated
    nights.write(zz=lines(100))
    assert nights.run().stats["num_left_out_documents"] == len(left_out)
    assert [nights.side(text) for text in texts] == found


def test_new_documents_that_are_linked_through_others_are_on_one_side(local):
    texts = [line(seed, 80) for seed in range(40)]
    versions = [(edited(edited(text, 5), 20), text, edited(edited(text, 50), 70)) for text in texts]
    nights = Nights(local)
    nights.write(**{f"file-{i}": b"\n".join(each[i] for each in versions) for i in (0, 1, 2)})
    assert nights.run().stats["num_left_out_documents"] == 0
    sides_of = [[nights.side(text) for text in each] for each in versions]
    linked = [each for each in sides_of if len(set(each)) == 1]
    assert len(linked) >= 32  # each version is found in 8 of 10 cases
    assert {each[0] for each in linked} == {0, 1}


@pytest.mark.parametrize("settings", [{"tokenize__max_piece_bytes": 1024}, {"windows__over": "document"}])
def test_the_only_document_is_cut_into_pieces_on_both_sides(local, settings):
    nights = Nights(local, **{"tokenize__documents": "file", "tokenize__max_piece_bytes": 2048} | settings)
    text = prose(1, 20_000)
    nights.write(a=text)
    first = nights.run()
    assert first.stats["valid_window_share"] == pytest.approx(0.2, abs=0.02)
    nights.write(a=text[:900] + b"An insertion.\n\n" + text[900:] + b"\n\n" + prose(2, 6000))
    second = nights.run()
    assert second.stats["num_new_documents"] < 0.4 * first.stats["num_new_documents"]


def test_edits_of_a_long_document_put_little_text_on_both_sides(local):
    """An edit can move a cut. A piece then has parts of two earlier ones, and follows the one of which it has more."""
    nights = Nights(local, tokenize__documents="file", tokenize__max_piece_bytes=4096)
    drawn, text = random.Random(3), prose(1, 60_000)
    seen = {"train": set(), "valid": set()}
    for _ in range(6):
        nights.write(a=text)
        night = nights.make()
        for side, passages in seen.items():
            passages.update(*map(passages_of, texts_of(night.run, side)))
        for _ in range(5):
            at = text.index(b" ", drawn.randrange(len(text) - 100))
            text = text[:at] + b" " + prose(drawn.randrange(10**6), drawn.choice([3, 30, 300])) + text[at:]
    assert len(seen["valid"]) > 10_000
    assert len(seen["valid"] & seen["train"]) < 0.02 * len(seen["valid"])


def passages_of(text, count=13):
    words = text.split()
    return {tuple(words[i : i + count]) for i in range(len(words) - count + 1)}


def test_only_new_files_get_keys(local, monkeypatch):
    hashed = []
    monkeypatch.setattr(
        encoding,
        "keys_of_documents",
        lambda texts, size, real=encoding.keys_of_documents: (hashed.append(len(texts)), real(texts, size))[1],
    )
    nights = Nights(local)
    nights.write(a=lines(0))
    nights.run()
    nights.write(b=lines(100, 25))
    nights.run()
    assert sum(hashed) == 40 + 25


class InterruptedEngine(TravelEngine):
    """An engine that lets another run decide first, once this one has seen what is new."""

    def __init__(self, other):
        self.other = other

    def map(self, function, items, description):
        if description == "write the keys of new documents" and self.other:
            other, self.other = self.other, None
            other()
        return super().map(function, items, description)


def test_of_two_runs_at_once_one_decides_and_the_other_follows(local):
    nights = Nights(local)
    nights.write(a=lines(0))
    nights.run()
    nights.write(b=lines(100))
    slow = nights.begin()
    nights.write(c=b"\n".join(edited(line(seed)) for seed in range(100, 140)))
    fast = nights.begin()
    decided = decide_sides(slow.run, slow.config, slow.tokens, InterruptedEngine(fast.windows))
    assert decided.decisions.number == 2  # the fast run decided all
    assert decided.decisions.sides_of(all_hashes(slow)).max() <= VALID
    fast.stats, slow.stats = fast.windows(), slow.windows()
    trained = texts_of(fast.run, "train") | texts_of(slow.run, "train")
    assert not trained & (texts_of(fast.run, "valid") | texts_of(slow.run, "valid"))
    assert slow.stats["num_new_documents"] == 0


def all_hashes(night):
    return np.concatenate([TokenShard.open(night.tokens.uri, entry).hash for entry in night.tokens.shards])


class CrashError(Exception):
    pass


def test_a_crash_between_any_two_writes_leaves_a_version_or_none(local, monkeypatch):
    nights = Nights(local)
    nights.write(a=lines(0))
    nights.run()
    nights.write(b=lines(100))
    night = nights.begin()
    before = nights.decisions
    real, left = {name: getattr(store.Store, name) for name in ("write_bytes", "publish")}, [0]

    def crashing(name):
        def write(self, uri, data):
            if left[0] == 0:
                raise CrashError(uri)
            left[0] -= 1
            return real[name](self, uri, data)

        return write

    for name in real:
        monkeypatch.setattr(store.Store, name, crashing(name))
        monkeypatch.setattr(store, name, crashing(name).__get__(store.ENVIRONMENT))
    seen = []
    for allowed in range(100):
        left[0] = allowed
        try:
            split = decide_sides(night.run, night.config, night.tokens, TravelEngine())
        except CrashError as crash:
            assert nights.decisions == before
            seen.append(re.sub(r"-\w+\.arrow", ".arrow", str(crash).rpartition("/split/")[2]))
            continue
        break
    assert seen == ["sides/decided.arrow", "keys/decided.arrow", *seen[2:-1], "00000002.json"]
    assert nights.decisions == split.decisions
    assert split.decisions.number == 2
    assert not (split.decisions.sides_of(all_hashes(night)) == fixed_sides.UNDECIDED).any()


def test_a_run_is_made_again_though_the_split_has_grown(local):
    nights = Nights(local, tokenize__tokenizer="train")
    nights.write(a=lines(0))
    first = nights.run()
    named = first.datasets["windows"]
    nights.write(b=lines(100))
    second = nights.run()
    assert second.datasets["windows"] != named
    nights.delete("b")
    again = nights.run()
    assert again.datasets["windows"] == named
    assert again.stats["reused"]
    store.delete_folder(again.lake.dataset("windows", named))
    assert nights.run().datasets["windows"] == named


def test_word_vectors_are_learned_from_training_text_alone(local):
    nights = Nights(
        local, embed__size=8, embed__epochs=1, embed__min_count=1, tokenize__kind="word", tokenize__vocab_size=5000
    )
    nights.write(a=b"\n".join(b"unique%d " % i + line(i) for i in range(40)))
    night = nights.make()
    embed.run(night.run, night.config, TravelEngine(), lambda _: None)
    found = set(read_embeddings(night.lake.dataset("embeddings", night.datasets["embeddings"])).tokens)
    by_word = {f"unique{i}": nights.side(b"unique%d " % i + line(i)) for i in range(40)}
    of_sides = [{word for word, side in by_word.items() if side == wanted} for wanted in (0, 1)]
    assert of_sides[0] <= found
    assert of_sides[1]
    assert not of_sides[1] & found


def test_drift_is_measured_once_and_kept_for_a_retry(local):
    nights = Nights(local)
    nights.write(a=lines(0))
    assert nights.run().stats["new_unigram_loss"] is None
    nights.write(b=lines(100))
    like = nights.run().stats
    nights.write(c=b"\n".join(b"0123456789 " * 3 + str(i).encode() * 30 for i in range(40)))
    night = nights.begin()
    other = night.windows()
    assert other["new_unigram_loss"] > 1.2 * like["new_unigram_loss"]
    assert like["new_unigram_loss"] == pytest.approx(like["old_unigram_loss"], rel=0.1)
    again = night.windows()
    assert {key: again[key] for key in again if "new" in key} == {key: other[key] for key in other if "new" in key}


def test_what_makes_documents_cannot_change(local):
    nights = Nights(local)
    nights.write(a=lines(0))
    nights.run()
    with pytest.raises(
        InputError, match=r"tokenize.max_piece_bytes=2048: the split of the pipeline default was .*16384"
    ):
        nights.begin(tokenize__max_piece_bytes=2048).windows()
    with pytest.raises(InputError, match=r"tokenize.documents=paragraph: .* decided with line"):
        nights.begin(tokenize__documents="paragraph").windows()
    for settings in ({"tokenize.max_piece_bytes": 2048}, {"tokenize.documents": "paragraph"}):
        changed = {"windows.split": "fixed", "tokenize.documents": "line", **settings}
        with pytest.raises(InputError, match="the split of the pipeline default was decided with"):
            start_run(Lake(local).run("early", "default"), nights.corpus, "tiny", changed)  # before anything is written
        assert not list_files(Lake(local).run("early", "default").uri)
    for pipeline in ("poems", "local"):  # another pipeline decides for itself; a run without Airflow is of `local`
        other = Lake(local).run("early", pipeline)
        start_run(other, nights.corpus, "tiny", {"windows.split": "fixed", "tokenize.documents": "paragraph"})
    changed = nights.begin(windows__valid_fraction=0.5).windows()
    assert (
        "windows.valid_fraction=0.5 has no effect: the split of this pipeline was decided with 0.2"
        in changed["split_note"]
    )
    assert changed["valid_window_share"] < 0.3


def test_a_corpus_without_a_fair_share_decides_nothing(local):
    nights = Nights(local)
    nights.write(a=line(0))
    with pytest.raises(
        InputError,
        match=r"no random split gives .* 20.0% .* 1 different documents of at most 16384 bytes; give more text$",
    ):
        nights.begin().windows()
    assert not list_files(nights.decisions.folder_uri)


def test_pipelines_decide_for_themselves(local):
    nights = Nights(local)
    nights.write(a=lines(0))
    nights.run()
    other = nights.begin(windows__seed=5)
    other.run = other.lake.run("night", "poems")
    other.tokenize()
    other.windows()
    hashes = all_hashes(other)
    decided = read_decisions(PipelineFolders(local, "poems"))
    assert not np.array_equal(decided.sides_of(hashes), nights.decisions.sides_of(hashes))


def test_the_draw_depends_on_the_hash_and_the_key_alone():
    hashes = np.random.default_rng(1).integers(0, 2**64, 100_000, np.uint64)
    draws = fixed_split.draw_of(hashes, "0/0")
    assert np.array_equal(fixed_split.draw_of(hashes[::-1], "0/0"), draws[::-1])
    assert np.allclose(np.histogram(draws, 10, (0, 1))[0], 10_000, atol=500)
    assert np.allclose(
        np.histogram(fixed_split.draw_of(np.arange(100_000, dtype=np.uint64), "x"), 10, (0, 1))[0], 10_000, atol=500
    )
    assert abs(np.corrcoef(draws, fixed_split.draw_of(hashes, "0/1"))[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"windows__size": 4096}, "size"),
        ({"windows__size": 256, "windows__over": "document"}, "over"),
        ({"windows__size": 8}, "valid_fraction"),
    ],
)
def test_a_remedy_of_the_first_split_was_checked_against_the_text(local, settings, key):
    nights = Nights(local, **settings)
    nights.write(a=b"\n".join((line(0, 800), line(1))) if key == "valid_fraction" else lines(0, 24))
    night = nights.begin()
    with pytest.raises(InputError, match=rf"documents of at most 16384 bytes; set windows\.{key}=") as caught:
        night.windows()
    change, given = remedy(caught.value)
    stats = nights.run(**change).stats
    assert stats["valid_window_share"] == pytest.approx(given, abs=0.1)  # of the text, of which few windows are cut


def remedy(error):
    """Return the settings that a message advises, and the share that it promises."""
    advice, _, promise = str(error).partition("; set ")[2].partition(", which gives ")
    found = re.findall(r"windows\.(\w+)=([\w.]+)", advice)
    return {f"windows__{key}": value for key, value in found}, float(promise.partition("%")[0]) / 100


def test_a_remedy_of_a_decided_split_was_checked_against_the_text(local):
    nights = Nights(local)
    nights.write(a=lines(0, 12))
    nights.run(windows__size=8)
    with pytest.raises(InputError, match=r"corpus too short: .*; set windows\.size=\d+, which gives") as caught:
        nights.begin(windows__size=512).windows()
    change, given = remedy(caught.value)
    assert nights.run(**change).stats["valid_window_share"] == pytest.approx(given, abs=0.001)
    nights.delete("a")
    nights.write(a=next(text for text in lines(0, 12).split(b"\n") if nights.side(text) == VALID))
    with pytest.raises(InputError, match=r"corpus too short: its training part .*; give more text$"):
        nights.begin(windows__size=8).windows()


def test_a_note_about_a_decided_split_promises_nothing(local):
    nights = Nights(local)
    nights.write(a=lines(0))
    nights.run()
    nights.write(a=b"\n".join(text for text in lines(0).split(b"\n") if nights.side(text) == VALID), b=lines(1000, 6))
    note = nights.run().stats["split_note"]
    assert note.endswith("instead of windows.valid_fraction=0.2: windows.split=fixed keeps each document on its side")
