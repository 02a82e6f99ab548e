"""Makes a run's model again: checks the inputs, plans the new run, and compares the weights.

The new run has the settings of the earlier run, with three exceptions:

- The model that training starts from, and a tokenizer that was not learned, are named by their URIs.
- The new model is not promoted.
- The training follows the record of the earlier training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobs.config import Config, of_run
from jobs.corpus.check import check_corpus
from jobs.engine.base import Engine
from jobs.errors import DamagedError, InputError, counted
from jobs.lake import store
from jobs.lake.forgotten import read_forgotten
from jobs.lake.layout import Lake, Run
from jobs.lake.models import TOKENIZER, read_model_manifest
from jobs.lake.uri import join
from jobs.model_io.lineage import TRAINED, Lineage, ModelOrigin, describe_corpus, differing, read_lineage
from jobs.sources.inputs import TRAIN
from jobs.sources.listing import list_corpus
from jobs.sources.new_text import files_behind
from jobs.training.inputs import check_training_inputs
from jobs.training.learner import choose_device
from jobs.training.lineage import code_of, hash_of_embeddings, software
from jobs.training.machine import this_machine
from jobs.training.record import Record, Replayed, first_difference, read_replayed, read_steps

EngineName = Literal["inline", "spark"]


@dataclass(frozen=True)
class Replay:
    """The plan to make the model of the run `source` again."""

    source: Run
    lineage: Lineage
    """The lineage of the model of `source`."""
    config: Config
    """The configuration of the new run."""
    replayed: Replayed
    """The weights and the record of `source`, which the new run must repeat."""
    states_lost: int = 0
    """How often a worker of `source` did not find its latest optimizer state."""

    @classmethod
    def of(cls, source: Run) -> Replay:
        """Return the replay of a run.

        Raises:
            InputError: if the run has no model, its model has no lineage, or an input of the run is gone.
        """
        manifest = store.read_manifest(source.model)
        if manifest is None:
            raise InputError(f"{source.uri}: this run has no model to replay; continue the run until it is trained")
        lineage = read_lineage(source.model)
        if lineage is None:
            raise InputError(
                f"{source.model}: has no lineage, since an earlier version made this model; train it again to replay it"
            )
        config = _config_of(source, lineage)
        record = Record.of_run(source, config.train)
        training = store.read_manifest(source.train)
        states_lost = int(training.counts.get("states_lost", 0)) if training else 0
        return cls(source, lineage, config, Replayed(source.folder, manifest.fingerprint, record), states_lost)

    @property
    def engine(self) -> EngineName:
        """The engine that trained the model."""
        return "spark" if self.lineage.machine["engine"] == "spark" else "inline"

    def check_corpus(self, engine: Engine) -> None:
        """Read the corpus on `engine`. Raise an InputError if the model was trained on another corpus."""
        begun = store.info(self.source.config)
        forgotten = read_forgotten(Lake(self.source.lake_uri)) if begun else ()
        if lost := sum(each.since > begun.modified_at for each in forgotten if begun):
            raise InputError(
                f"the lake has forgotten {counted(lost, 'document')} since {self.source.folder} began, so the"
                " model of this run cannot be made again"
            )
        listing = list_corpus(self.config.corpus, lake_uri=self.source.lake_uri)
        files = [each.describe() for each in check_corpus(listing, self.config.text_settings, engine)]
        recorded = self.lineage.corpus
        found = describe_corpus(files, recorded["listed_in"])
        if found["sha256"] == recorded["sha256"]:
            return
        raise InputError(
            f"the corpus is not the one that {self.source.folder} was trained on"
            f" ({_changed_file(self.source, files) or _sizes(recorded, found)}); restore it, then replay"
        )

    def warnings(self, engine: str) -> Iterator[str]:
        """Yield the reasons why the weights may differ: other code, another machine, or lost optimizer states.

        The machines of Spark's workers are not known before the training.
        """
        if lost := self.states_lost:
            yield f"{lost} optimizer states were lost in {self.source.folder}; a replay cannot repeat that"
        known: dict[str, Any] = {"engine": engine}
        if engine == "inline":
            known |= this_machine(choose_device(0, self.config.train.device))
            del known["threads"]  # each worker sets its own
        here = Lineage.conditions_of(known, software(), code_of(self.config))
        yield from differing(self.lineage.conditions, here)

    def prepare(self, run: Run) -> None:
        """Check the new run `run`, and write `replayed` to its folder unless an earlier call has written it.

        Raises:
            InputError: if `run` exists and is not a replay of `source`, or a file that the settings name is gone.
        """
        if store.exists(run.config) and read_replayed(run) is None:
            raise InputError(f"{run.uri}: this run exists and is not a replay; choose another --run-id")
        check_training_inputs(run, self.config)
        if not store.publish(run.replay, self.replayed.to_json()) and read_replayed(run) != self.replayed:
            raise InputError(f"{run.uri}: this run is a replay of another run; choose another --run-id")

    def verdict(self, run: Run) -> tuple[bool, str]:
        """Return whether `run` has the same weights as `source`, and a line for the user with the result."""
        manifest, lineage = store.read_manifest(run.model), read_lineage(run.model)
        if manifest is None or lineage is None:
            raise DamagedError(f"{run.model}: the model is not complete; delete {run.train}, and replay again")
        ours, theirs = manifest.fingerprint, self.replayed.weights
        if ours == theirs:
            return True, f"equal: {run.folder} has the weights of {self.source.folder} (sha256 {ours})"
        reason = next(self.lineage.differences(lineage), None)
        reason = reason or first_difference(read_steps(self.source), read_steps(run)) or "no metric differs"
        return (
            False,
            f"not equal: here {run.folder} (sha256 {ours}), there {self.source.folder} (sha256 {theirs}): {reason}",
        )


def _config_of(source: Run, lineage: Lineage) -> Config:
    """Return the configuration of the new run, in which promotion is disabled."""
    config = of_run.read_config(source)
    learns = config.tokenize.tokenizer == TRAIN or lineage.tokenizer["from"] == TRAINED
    if hash_of_embeddings(config.train.embeddings) != lineage.embeddings:
        raise InputError(f"train.embeddings: {config.train.embeddings} is gone or has changed; restore it, then replay")
    init = _place_of(lineage.start, Lake(source.lake_uri)) if lineage.start else None
    return config.model_copy(
        update={
            "tokenize": config.tokenize.model_copy(
                update={"tokenizer": TRAIN if learns else join(source.model, TOKENIZER)}
            ),
            "train": config.train.model_copy(update={"init": init}),
            "promotion": config.promotion.model_copy(update={"enabled": False}),
            "chosen": tuple(key for key in config.chosen if not key.startswith("promotion.")),
        }
    )


def _place_of(origin: ModelOrigin, lake: Lake) -> str:
    """Return the URI of the model that training started from: its earlier place, or a copy in `Lake.models`."""
    for uri in (origin.uri, join(lake.models, origin.name or "unknown")):
        manifest = read_model_manifest(uri)
        if manifest is not None and origin.weights in ("", manifest.fingerprint):
            return uri
    raise InputError(
        f"{origin.uri}: the model that training started from (weights {origin.weights[:12]}) is gone or has changed;"
        " restore it, then replay"
    )


def _changed_file(source: Run, files: list[dict[str, Any]]) -> str:
    """Return the name of the first corpus file that differs, and how. Return "" if `source`'s files are not known."""
    listed = files_behind(source.model, Lake(source.lake_uri))
    if listed is None:
        return ""
    before = {each["name"]: each["sha256"] for each in listed}
    now = {each["name"]: each["sha256"] for each in files}
    name = min(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return f"{name} {'is new' if name not in before else 'is gone' if name not in now else 'has changed'}"


def _sizes(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    shown = [f"{each['files']:,} files, {each['bytes']:,} bytes" for each in (recorded, found)]
    return f"{shown[0]} then, {shown[1]} now"
