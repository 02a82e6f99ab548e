"""The metrics of a training that goes on: read part by part, they are those that reading everything gives."""

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.lake import store
from jobs.lake.layout import Lake
from jobs.lake.store import Store
from jobs.lake.strict_json import to_jsonl
from jobs.lake.uri import join
from jobs.results.rows import LiveParts, evaluation_rows, read_curves, read_parts
from tests.support.results import training_row


class CountingStore(Store):
    """A store that counts the files that are read."""

    def __init__(self):
        super().__init__()
        self.read = 0

    def read_bytes(self, uri):
        self.read += 1
        return super().read_bytes(uri)


def write_part(run, attempt, number, first, last, every=10):
    rows = [training_row(step, is_evaluated=step % every == 0) for step in range(first, last + 1)]
    store.write_bytes(join(run.metrics_parts, f"part-{attempt:04d}-a-{number:06d}.jsonl"), to_jsonl(rows))


def test_a_part_is_read_once(tmp_path):
    run, counting = Lake((tmp_path / "lake").as_uri()).run("r"), CountingStore()
    live = LiveParts(run, counting)
    assert live.update() == ([], [])
    for number in range(20):
        write_part(run, 0, number, 7 * number + 1, 7 * number + 7)
        evaluated, rest = live.update()
        assert (len(evaluated), len(rest)) == divmod(7 * number + 7, 10)
    assert counting.read == 20
    write_part(run, 1, 0, 101, 113)  # a new attempt begins before the end of the earlier one
    evaluated, rest = live.update()
    assert ([row["step"] for row in evaluated], [row["step"] for row in rest]) == (
        list(range(10, 111, 10)),
        [111, 112, 113],
    )
    assert counting.read == 20 + 21


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(1, 25)), max_size=12), st.integers(1, 12))
def test_the_rows_are_those_of_all_parts(tmp_path_factory, parts, every):
    run = Lake(tmp_path_factory.mktemp("lake").as_uri()).run("r")
    live, attempt, number, step = LiveParts(run), 0, 0, 0
    for is_new_attempt, size, back in parts:
        if is_new_attempt:
            attempt, number, step = attempt + 1, 0, max(0, step - back)
        write_part(run, attempt, number, step + 1, step + size, every)
        number, step = number + 1, step + size
        evaluated, rest = live.update()
        everything = read_parts(run)
        assert evaluated == list(evaluation_rows(everything))
        assert rest == everything[len(everything) - len(rest) :]
        assert read_curves(run, parts=live) == read_curves(run)


def test_parts_that_were_deleted_are_forgotten(tmp_path):
    run = Lake((tmp_path / "lake").as_uri()).run("r")
    live = LiveParts(run)
    write_part(run, 0, 0, 1, 25)
    assert len(live.update()[0]) == 2
    store.delete_folder(run.metrics_parts)
    write_part(run, 0, 0, 1, 9)
    write_part(run, 0, 1, 10, 12)
    evaluated, rest = live.update()
    assert (len(evaluated), len(rest)) == (1, 2)
