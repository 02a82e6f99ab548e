"""The report of a run: one self-contained HTML file without scripts, made from the run's files so far.

The page forbids a browser to load anything (Content-Security-Policy). Texts of models and corpora are escaped by
jinja2, and in plots by `jobs.results.svg`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

from jinja2 import Environment, FunctionLoader, StrictUndefined

from jobs.errors import NightjarError, counted
from jobs.lake.layout import Run
from jobs.lake.store import ENVIRONMENT, Store
from jobs.lake.strict_json import as_number
from jobs.lake.uri import join
from jobs.metrics import Show, metrics_of, names
from jobs.metrics.columns import EvaluationRow
from jobs.metrics.stats import STATISTICS, SUMMARY_METRICS, StageRow
from jobs.results import figures
from jobs.results.rows import LiveParts, Row, read_csv, read_curves
from jobs.results.summary import MOST_CHARACTERS, Status, Summary, read_object, read_summary, settings_of
from jobs.results.svg import Bars, Curves, legend
from jobs.results.text import duration, moment, one_line, readable, with_unit

MOST_ROWS = 1000
"""Maximum number of rows of metrics in the report, so that a browser can open the report of any training."""
MOST_STAGES = 60
MOST_SAMPLES, MOST_SAMPLE_CHARACTERS = 6, 4000
MOST_SETTING_CHARACTERS, MOST_TILE_CHARACTERS = 1000, 60
MOST_TEXT_BYTES = 1 << 20
"""Maximum number of bytes that are read from the file of samples."""
_DATA = {
    "tokenize": ("num_files", "num_documents", "num_bytes", "num_tokens", "bytes_per_token", "vocab_size"),
    "windows": ("num_train_windows", "num_valid_windows", "num_valid_documents_also_in_train", "ngram_leak"),
}
"""For each pipeline step, the statistics about the data that the report shows as tiles."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Tile:
    """One number of the report: its label, its text with the unit, and its meaning."""

    label: str
    text: str
    meaning: str

    @property
    def number(self) -> str:
        """The text without its unit."""
        return self.text.partition(" ")[0]

    @property
    def unit(self) -> str:
        """The unit. It is "" if the label already is the unit."""
        unit = self.text.partition(" ")[2]
        return "" if unit == self.label else unit


@dataclass(frozen=True)
class Sample:
    """A prompt and the text that the model wrote after it."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Report:
    """Everything that the report of a run shows."""

    summary: Summary
    stats: Mapping[str, Any]
    rows: Sequence[Row]
    stages: Sequence[Row]
    samples: Sequence[Sample]
    settings: Mapping[str, Any]
    chosen: Sequence[str]
    expected: Mapping[str, Any] = field(default_factory=dict)
    """The estimate, made before the run had a cluster. Empty if there is no estimate."""
    decision: Mapping[str, Any] = field(default_factory=dict)
    """The decision about promotion; empty if there is none."""
    problems: Sequence[str] = field(default=())
    """Files that could not be read, one line for each."""

    def failed_by(self, cause: str | None) -> Report:
        """Return the report with the run shown as failed by `cause`. If `cause` is None, the report is unchanged."""
        if cause is None:
            return self
        line = one_line(cause, MOST_CHARACTERS)
        return replace(self, summary=replace(self.summary, cause=line, status=Status.FAILED))

    def steps_stats(self, step: str) -> Mapping[str, Any]:
        """Return the statistics of one pipeline step; empty if there are none."""
        steps = self.stats.get("steps")
        found = steps.get(step) if isinstance(steps, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def promotion(self) -> str:
        """Whether the model was promoted, and why, in one line; "" if nothing was decided."""
        if not isinstance(why := self.decision.get("why"), str):
            return ""
        return one_line(
            f"{'promoted' if self.decision.get('promoted') is True else 'not promoted'}: {why}", MOST_CHARACTERS
        )

    def headline(self) -> list[Tile]:
        """Return the tiles of the results: the summary metrics, the instance time and the cost."""
        steps = {name: step for step, name in SUMMARY_METRICS}  # a metric of two steps has the same meaning in both
        found = [tile for name, step in steps.items() for tile in _tiles(step, self.stats, [name])]
        return [*found, *self._instance_tiles()]

    def _instance_tiles(self) -> Iterator[Tile]:
        """Yield the tiles of instance time, cost and estimate. Yield nothing if the instance time is not known."""
        if (seconds := self.summary.instance_seconds) is not None:
            parts = ", ".join(f"{duration(each)} {name}" for name, each in self.summary.instances)
            charged = "" if self.summary.is_embedded else ", which AWS charges for"
            meaning = f"Time of all instances of the clusters together{charged}: {parts}."
            yield Tile("instance time", duration(seconds), one_line(meaning, MOST_CHARACTERS))
            yield self._cost_tile()
            yield from self._estimate_tile(seconds)

    def _cost_tile(self) -> Tile:
        note = f"{self.summary.cost_note}." if self.summary.cost_note else ""
        if self.summary.is_embedded:
            return Tile("cost", "nothing", one_line(f"Cost of these instances: {note}", MOST_CHARACTERS))
        meaning = f"Cost of these instances: EC2, EMR and system disks, without network and storage. {note}".rstrip()
        text = with_unit(self.summary.cost_usd, "USD") if self.summary.cost_usd is not None else "not known"
        return Tile("cost", text, one_line(meaning, MOST_CHARACTERS))

    def _estimate_tile(self, actual: float) -> Iterator[Tile]:
        """Yield the tile of the estimated instance time. After the run, it also has the difference to `actual` in %."""
        if not self.expected:
            return
        expected = as_number(self.expected.get("instance_seconds"))
        if expected is None:
            yield Tile("expected", "not known", one_line(f"{self.expected.get('reason')}.", MOST_CHARACTERS))
            return
        is_over = self.summary.status is not Status.RUNNING
        difference = f" ({(actual - expected) / expected:+.0%} in fact)" if expected and is_over else ""
        nights, usd = int(as_number(self.expected.get("nights")) or 0), as_number(self.expected.get("usd"))
        meaning = f"Instance time that was expected before the run, from {counted(nights, 'earlier night')}."
        if usd is not None and not self.summary.is_embedded:
            meaning += f" Its cost was expected to be {with_unit(usd, 'USD')}."
        yield Tile("expected", f"{duration(expected)}{difference}", one_line(meaning, MOST_CHARACTERS))

    def data_tiles(self) -> list[Tile]:
        """Return the tiles of the statistics of the data."""
        return [tile for step, wanted in _DATA.items() for tile in _tiles(step, self.steps_stats(step), wanted)]

    def training_figures(self) -> list[Curves]:
        """Return the plots of the training."""
        return list(figures.of_training(self.rows))

    def data_figures(self) -> list[Bars]:
        """Return the plots of the data."""
        return list(figures.of_data(self.steps_stats("tokenize"), self.steps_stats("windows")))

    def spark_figures(self) -> list[Bars]:
        """Return the plots of the steps and of Spark's work."""
        seconds = self.stats.get("seconds")
        return [*figures.of_steps(seconds if isinstance(seconds, dict) else {}), *figures.of_spark(self.stages)]


def _tiles(step: str, values: Mapping[str, Any], wanted: Iterable[str]) -> list[Tile]:
    metrics = metrics_of(STATISTICS[step])
    return [
        Tile(
            label := figures.label_of(name),
            one_line(
                figures.text_of(values[name], label, figures.unit_of(metrics[name], values)), MOST_TILE_CHARACTERS
            ),
            metrics[name].meaning,
        )
        for name in wanted
        if values.get(name) is not None
    ]


def read_report(
    run: Run, store: Store = ENVIRONMENT, *, is_over: bool = False, parts: LiveParts | None = None
) -> Report:
    """Read the files of a run, and return what its report shows.

    A file that cannot be read leaves a gap in the report, and adds a line to `Report.problems`.

    Args:
        run: The run, which may have no file yet.
        store: The store of the lake.
        is_over: Whether the run is over. A lock that is still held is then ignored.
        parts: Keeps the metrics that earlier calls have read, so that this call reads only new ones.
    """
    problems: list[str] = []

    def tolerant(read: Callable[[], Value], otherwise: Value) -> Value:
        try:
            return read()
        except (NightjarError, OSError) as error:
            problems.append(one_line(error, MOST_CHARACTERS))
            return otherwise

    config: dict[str, Any] = tolerant(lambda: read_object(run.config, store), {})
    chosen = config.get("chosen")
    return Report(
        summary=read_summary(run, store, is_over=is_over),
        stats=tolerant(lambda: read_object(join(run.stats, "stats.json"), store), {}),
        rows=tolerant(lambda: read_curves(run, store, parts), []),
        stages=tolerant(lambda: read_csv(join(run.stats, "spark.csv"), store), []),
        samples=tolerant(lambda: _read_samples(run, store), []),
        settings=settings_of(config),
        chosen=[str(key) for key in chosen] if isinstance(chosen, list) else [],
        expected=tolerant(lambda: read_object(run.estimate, store), {}),
        decision=tolerant(lambda: read_object(run.promotion, store), {}),
        problems=problems,
    )


def _read_samples(run: Run, store: Store) -> list[Sample]:
    """Return the first samples of generated text. Skip lines that are not in the form that Nightjar writes."""
    if not store.exists(run.samples):
        return []
    with store.open_input(run.samples) as file:
        lines = file.read(MOST_TEXT_BYTES).split(b"\n")[:-1]
    found = []
    for line in lines[:MOST_SAMPLES]:
        try:
            values = json.loads(line)
            found.append(Sample(_beginning(str(values["prompt"])), _beginning(str(values["text"]))))
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return found


def _beginning(text: str) -> str:
    return text if len(text) <= MOST_SAMPLE_CHARACTERS else f"{text[:MOST_SAMPLE_CHARACTERS]}…"


def to_html(report: Report) -> bytes:
    """Return the HTML file of a report. Each part of the file has a maximum size."""
    page = environment().get_template("report.html").render(**shown(report), made=moment(time.time()))
    return page.encode(errors="replace")


def shown(report: Report) -> dict[str, Any]:
    """Return the variables for the templates ``results.html`` and ``details.html``."""
    rows = _evenly_spaced(report.rows, MOST_ROWS)
    return {
        "report": report,
        "summary": report.summary,
        "rows": rows,
        "columns": list(dict.fromkeys(name for row in rows for name in row)),
        "units": {
            name: figures.unit_of(each, report.rows[0] if report.rows else {})
            for name, each in metrics_of(EvaluationRow).items()
        },
        "meanings": {name: each.meaning for name, each in metrics_of(EvaluationRow).items()},
        "stage_columns": ["step", *names(StageRow, Show.TABLE)],
        "stages": report.stages[:MOST_STAGES],
        "chosen": {key: report.settings[key] for key in report.chosen if key in report.settings},
    }


def _evenly_spaced(rows: Sequence[Row], most: int) -> Sequence[Row]:
    """Return at most `most` of the rows, evenly spaced, with the first and the last row among them."""
    if len(rows) <= most:
        return rows
    return [rows[number * (len(rows) - 1) // (most - 1)] for number in range(most)]


def _setting(value: Any) -> str:
    return one_line(readable(value), MOST_SETTING_CHARACTERS)


@cache
def environment() -> Environment:
    """Return jinja2's environment with the templates of this folder and the filters that they use."""
    made = Environment(
        loader=FunctionLoader(template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"readable": readable, "duration": duration, "moment": moment, "words": figures.label_of}
    made.filters |= {"counted": counted, "setting": _setting, "dollars": lambda value: with_unit(value, "USD")}
    made.globals["legend"] = legend
    return made


def template(name: str) -> str | None:
    """Return the text of a template, even from code in a zip file. Return None if there is no such template."""
    file = files("jobs.results") / "templates" / name
    return file.read_text("utf-8") if file.is_file() else None
