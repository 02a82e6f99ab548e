"""What happens in each night, and how it must end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tests.nights.corpus import Corpus

if TYPE_CHECKING:
    from tests.nights.month import Month

End = Literal["promoted", "kept", "trained", "skipped", "failed", "refused"]
"""`trained`: promoted or kept, as the gate decides. `refused`: failed, or kept, but never promoted."""


@dataclass(frozen=True)
class Night:
    """A night of the pipeline."""

    name: str
    expects: End
    change: Callable[[Corpus], None] = lambda _: None
    """What happens to the text before."""
    form: Mapping[str, Any] | Callable[[Month], Mapping[str, Any]] = field(default_factory=dict)
    """What a person fills in; a night by itself has nothing."""
    new_files: int | None = None
    """How many files must be tokenized, and no others."""
    says: str = ""
    """A regular expression for the reason, or for the log of a night that failed or did nothing."""
    faults: Sequence[Mapping[str, Any]] = ()
    """Faults of AWS."""
    during_training: Callable[[Month], None] | None = None
    num_clusters: int = 1

    @property
    def needs_cluster(self) -> bool:
        """Whether the night must have had a cluster."""
        return self.expects in ("promoted", "kept", "trained")


FROM_SCRATCH: Mapping[str, Any] = {"train.init": None, "tokenize.tokenizer": "train"}
SAME = "Nothing has changed since run"

NIGHTS: Sequence[Night] = (
    Night("the first night, of 6 files", "promoted", lambda text: text.add(6), new_files=6, says="the first champion"),
    Night("nothing new", "skipped", says=SAME),
    Night("the same model again, by hand", "kept", form={"train.init": None, "generate.num_samples": 2}, new_files=0,
          says=r"0\.00%"),
    Night("a vocabulary of 12 words, by hand", "refused", new_files=6, says="<unk>|baseline|higher|repeat",
          form={**FROM_SCRATCH, "tokenize.kind": "word", "tokenize.vocab_size": 12}),
    Night("a new file", "trained", lambda text: text.add(1), new_files=1),
    Night("nothing new", "skipped", says=SAME),
    Night("a file has another name", "trained", Corpus.rename, new_files=0),
    Night("a file is gone", "trained", Corpus.remove, new_files=0),
    Night("nothing new", "skipped", says=SAME),
    Night("a new file, while EMR does not answer", "trained", lambda text: text.add(1), new_files=1,
          faults=[{"kind": "unavailable", "service": "emr", "count": 12}]),
    Night("a new file, while AWS has no m6i", "trained", lambda text: text.add(1), new_files=1,
          faults=[{"kind": "no-capacity", "instance_types": ["m6i.*"], "count": 1}]),
    Night("a file that is not UTF-8", "failed", Corpus.add_damaged, says=r"damaged\.txt.*UTF-8"),
    Night("the damaged file is gone", "skipped", Corpus.remove_damaged, says=SAME),
    Night("one line, repeated, by hand", "refused",
          form=lambda month: {**FROM_SCRATCH, "corpus": str(month.corpus.repeated_line())}),
    Night("11 new files, and at first AWS has no instance", "trained", lambda text: text.add(11), new_files=11,
          num_clusters=2, faults=[{"kind": "no-capacity", "count": 1}]),
    Night("trained longer, by hand", "promoted", form={"train.epochs": 3}, new_files=0),
    Night("shuffled words, by hand", "refused", form=lambda month: {"corpus": str(month.corpus.shuffled())}),
    Night("a new file, and a rollback meanwhile", "trained", lambda text: text.add(1), new_files=1,
          during_training=lambda month: month.roll_back()),
    Night("nothing new", "skipped", says=SAME),
    Night("the evaluation set as text, by hand", "refused",
          form=lambda month: {**FROM_SCRATCH, "corpus": str(month.corpus.edited(month.evaluation_set()))}),
    Night("a copy of a file", "trained", Corpus.repeat, new_files=0),
    Night("above its budget, by hand", "failed", form={"budget.usd": 0.0001, "train.epochs": 4},
          says=r"budget\.usd: the run is expected to cost"),
    Night("nothing new", "skipped", says=SAME),
    Night("another vocabulary, by hand", "trained", form={**FROM_SCRATCH, "tokenize.vocab_size": 1000}),
    Night("a new file", "trained", lambda text: text.add(1)),
    Night("nothing new", "skipped", says=SAME),
    Night("hardly trained, by hand", "kept", form={"train.init": None, "train.epochs": 0.02}, says="higher|baseline"),
    Night("a new file", "trained", lambda text: text.add(1), new_files=1),
    Night("nothing new", "skipped", says=SAME),
    Night("nothing new", "skipped", says=SAME),
)  # fmt: skip
