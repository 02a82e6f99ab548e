"""The first ten days of a pipeline, as the documentation tells them: what a person does, and what the nights say.

``make ten-days`` plays them, and writes ``docs/guides/ten-days.md`` from what the runs and the commands have printed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bench.text import original
from tests.nights.corpus import Corpus
from tests.nights.month import FILE, PIPELINE, Done, Month, causes, month
from tests.nights.plan import SAME, Night

PAGE = Path("docs/guides/ten-days.md")
_HEAD = """# The first ten days

Ten days of a pipeline that trains every night, as a script played them on a laptop: the real DAG and the real job, on
the embedded EMR, with a small model, small texts and invented prices. What is in frames was printed by the runs and the
commands; places are shortened. `make ten-days` plays them again and writes this page.

The file of the pipeline:

```toml
{file}
```

[Nightly runs](nightly.md) says what each of these keys means.
"""
_MESSAGE = re.compile(
    r"^\S+ \[\w+ *\] ((?:Estimate|Promoted|Not promoted|Nothing has changed|The run's cluster|EMR's list)\b.*?)"
    r" +\[(?:nightjar|unusual_prefix)"  # modules, and the DAG's file
)


@dataclass(frozen=True)
class Day:
    """A day: what it is about, what a person does, and the run."""

    title: str
    text: str
    night: Night
    commands: Sequence[Sequence[str]] = ()
    """Commands of `nightjar` that are shown after the night."""


def _mend(text: Corpus) -> None:
    text.remove_damaged()
    text.add(1)


DAYS = (
    Day(
        "write the file, and run it once",
        "Try the settings with `nightjar run --config-file poems.toml` on your machine, copy the file into the folder"
        " `NIGHTJAR_PIPELINES`, and trigger the DAG by hand with the form as it is. The first model that is better than"
        " counting tokens becomes the champion.",
        Night("by hand", "promoted", lambda text: text.add(6), new_files=6),
    ),
    Day(
        "nothing has changed",
        "The night looks at the names, sizes and times of the texts, at the code and at the settings. It is green, and"
        " costs nothing.",
        Night("", "skipped", says=SAME),
    ),
    Day(
        "two new texts",
        "Upload them; the night does the rest. It encodes the new files alone, and goes on from the weights of the"
        " champion.",
        Night("", "trained", lambda text: text.add(2), new_files=2),
    ),
    Day(
        "a bad file",
        "Somebody has uploaded a file that is no text. The run fails before it has a cluster, names the file, and the"
        " champion stays. Remove the file, or set `tokenize.invalid_utf8=\"replace\"`.",
        Night("", "failed", Corpus.add_damaged, says=r"damaged\.txt"),
    ),
    Day(
        "an outage",
        "The file is gone, a new text has come, and EMR does not answer for a while. Tasks wait and ask again.",
        Night("", "trained", _mend, new_files=1, faults=[{"kind": "unavailable", "service": "emr", "count": 12}]),
    ),
    Day(
        "a better model",
        "Nights are short. Train longer by hand, with one field of the form: `train.epochs=3`.",
        Night("", "promoted", form={"train.epochs": 3}, new_files=0),
    ),
    Day(
        "a worse one",
        "Somebody tries a model from scratch, hardly trained. The gate compares it with the champion on the same"
        " documents, and the champion stays. The run keeps its model and its report.",
        Night("", "kept", form={"train.init": None, "train.epochs": 0.05}),
    ),
    Day(
        "no machines",
        "AWS has no capacity for the cluster. The cluster ends, and the run goes on with another one, of the next type"
        " of instances.",
        Night("", "trained", lambda text: text.add(1), new_files=1, num_clusters=2,
              faults=[{"kind": "no-capacity", "count": 1}]),
    ),
    Day(
        "back to an earlier champion, while a night runs",
        "Somebody does not like the text of the champion, and goes back to the one before. The night that is under way"
        " is compared with the champion of the moment.",
        Night("", "trained", lambda text: text.add(1), new_files=1, during_training=lambda played: played.roll_back()),
    ),
    Day(
        "look back",
        "Who promoted what, when and why; and what each night took and cost.",
        Night("", "skipped", says=SAME),
        (("champion", "show", PIPELINE), ("runs", "list")),
    ),
)  # fmt: skip


def main() -> int:
    """Play the days, and write the page; return 1, and write nothing, if a day did not end as the page says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightjar-days-") as name, month(Path(name), original()) as played:
        parts = [_HEAD.format(file=FILE.format(corpus="/data/poems").strip())]
        bad = 0
        for number, day in enumerate(DAYS, 1):
            done = played.play(number, day.night)
            bad += len(done.problems)
            parts += _tell(number, day, done, played, name)
    if not bad:
        options.output.write_text("\n".join(parts), "utf-8")
    return min(bad, 1)


def _tell(number: int, day: Day, done: Done, played: Month, folder: str) -> Iterator[str]:
    yield f"## Day {number}: {day.title}\n"
    yield "\n".join(textwrap.wrap(day.text, 120, break_long_words=False, break_on_hyphens=False)) + "\n"
    yield _framed(_worth_showing(played.read_log(done.run)), folder)
    for words in day.commands:
        command = [sys.executable, "-m", "infra.cli", *words, "--lake", played.lake.uri]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        yield _framed([f"$ nightjar {' '.join(words)}", *_aligned(printed)], folder)


def _worth_showing(log: str) -> Iterator[str]:
    """Yield the messages of a run that tell its story, each once, and the cause of its failure."""
    yield from dict.fromkeys(found[1] for line in log.splitlines() if (found := _MESSAGE.match(line)))
    yield from causes(log)


def _aligned(printed: str) -> Iterator[str]:
    """Yield the lines of tables with tabs, with aligned columns; another number of columns begins another table."""
    for _, table in groupby((line.split("\t") for line in printed.splitlines()), len):
        rows = list(table)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _framed(lines: Iterable[str], folder: str) -> str:
    return "\n".join(
        ["```text", *(line.replace(f"file://{folder}", "").replace(folder, "") for line in lines), "```\n"]
    )


if __name__ == "__main__":
    sys.exit(main())
