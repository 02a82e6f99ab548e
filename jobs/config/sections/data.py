"""Settings of the steps from text to windows and vectors: tokenize, windows and embed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.config.sections import Section

PIECE_BYTES = 1 << 14
"""The value of `max_piece_bytes` if none is set: the largest size, in bytes, of a piece of a document.

Documents are cut into pieces only for training with a fixed split.
"""


class TokenizeConfig(Section):
    """The tokenize step: from text to tokens."""

    documents: Literal["paragraph", "line", "record", "file"] = "paragraph"
    """How files are divided into documents. `paragraph`: text between blank lines. `line`: each line. `record`: each
    record of .jsonl or .parquet, or a whole text file. `file`: each text file. With `paragraph` and `line`, the text of
    each record is divided as well."""
    input: Literal["text", "ids"] = "text"
    """Content of the files. `text`: plain text. `ids`: token ids, either plain or as lines `word,[ids],frequency`.
    `ids` needs tokenize.kind=word."""
    field: str = Field("text", min_length=1)
    """Field of .jsonl records and column of .parquet files that holds the text."""
    invalid_utf8: Literal["refuse", "replace"] = "refuse"
    """What to do with bytes that are not UTF-8, and with unpaired surrogates in JSON. `refuse` stops the run and
    reports the file and the offset. `replace` puts U+FFFD in their place and counts them."""
    drop_gutenberg: bool = False
    """Leave out the headers, footers and licences that Project Gutenberg adds to its books. A file or record may hold
    several books. Text without the marks of Project Gutenberg is kept whole and counted."""
    normalize_nfc: bool = False
    """Convert text to Unicode normal form C, so that accented characters are encoded in one way only."""
    min_document_bytes: int = Field(0, ge=0)
    """Leave out documents shorter than this many bytes."""
    max_document_bytes: int | None = Field(None, ge=1)
    """Leave out documents longer than this many bytes. Without a value, no document is too long."""
    max_piece_bytes: int | None = Field(None, ge=1024)
    """Documents larger than this many bytes are cut into pieces of at most this size, at places that depend only on the
    text around them. Each piece then counts as a document, and is on one side of the split. Without a value, 16,384.
    Smaller pieces help a small corpus to reach windows.valid_fraction. The value cannot change once the split of a
    pipeline is fixed."""
    drop_duplicates: bool = False
    """Keep only the first of several documents with the same text. Tokens of earlier runs are then not reused, because
    the other files of the corpus decide which documents of a file are kept."""
    drop_near_duplicates: bool = False
    """Keep only the first of several documents with nearly the same words (MinHash). Of two documents that share 80% of
    their 5-word sequences, the later one is found in 9 of 10 cases. As with drop_duplicates, no tokens are reused."""
    kind: Literal["bpe", "word", "char"] = "bpe"
    """Kind of tokens when a vocabulary is trained. `bpe`: parts of words (byte-level BPE), which can represent any
    text. `word` and `char`: words and characters; those outside the vocabulary become `<unk>`."""
    lowercase: bool = False
    """Convert words or characters to lower case."""
    min_frequency: int = Field(1, ge=1)
    """Number of occurrences that a word or character needs to be in the vocabulary. Rarer ones become `<unk>`."""
    tokenizer: str = Field("train", min_length=1)
    """Origin of the vocabulary. `train`: learn it from the corpus. `inherit`: take the champion's vocabulary. If there
    is no champion, take the vocabulary of the latest run on this corpus. If there is no such run, learn the vocabulary.
    The champion is that of the pipeline in train.init, or else that of the run's own pipeline. Any other value is the
    path or URI of a `tokenizer.json` that Hugging Face's library tokenizers can execute, with the special token
    `<|endoftext|>`. With train.init, the vocabulary must be that of the model to start from."""
    vocab_size: int = Field(8192, ge=3, le=1_000_000)
    """Largest number of tokens in a vocabulary that is learned. BPE needs 258 or more: one for each byte, one for the
    end of a text, and the merged parts. 8,000 suits models of a few million parameters; larger models use 30,000 or
    more."""
    train_bytes: int = Field(256 * 2**20, ge=1024)
    """BPE learns from a sample of at most this many bytes, drawn evenly from the corpus. Words and characters are
    counted in the whole corpus."""
    split_bytes: int = Field(8 * 2**20, ge=4096)
    """Size in bytes of the parts into which large files are cut, one task for each part. With smaller parts, more
    executors work at the same time. Compressed files, and files that are one document, are not cut."""

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if self.kind == "bpe" and self.vocab_size < 258:
            raise ValueError(f"tokenize.vocab_size ({self.vocab_size}) must be at least 258 for tokenize.kind=bpe")
        if self.input == "ids" and self.kind != "word":
            raise ValueError(f"tokenize.input=ids needs tokenize.kind=word, not {self.kind}: each id is one token")
        return self


class WindowsConfig(Section):
    """The windows step: from tokens to windows for training and validation."""

    size: int = Field(128, ge=1, le=65_536)
    """Number of input tokens in a window, which is the context that the model sees. A window holds one more token, the
    last target. A longer window costs more memory and time."""
    overlap: int = Field(0, ge=0)
    """Number of tokens that two consecutive windows share. With 0, each token is used once. Higher values make more
    windows of the same text."""
    over: Literal["stream", "document"] = "stream"
    """`stream`: windows run over all documents, joined one after another. `document`: each window stays inside a
    document, and documents that are too short are left out and counted."""
    last: Literal["drop", "shift"] = "drop"
    """What to do with the tokens at the end that do not fill a window. `drop` leaves them out; `shift` moves the last
    window back until it fits."""
    split: Literal["auto", "source", "block", "hash", "tail", "fixed"] = "auto"
    """How documents are divided into training and validation. `source`: by file. `block`: by contiguous
    blocks of the files. `hash`: by the content of each document. `tail`: the end of each file is for validation.
    `auto`: by file if there are 20 files or more, none is much larger than the others, and whole files give the wanted
    share; else by block. `fixed`: by content, decided once for a pipeline and never changed. With `block`, `hash` and
    `tail`, documents that are too long for the wanted share are cut, and a gap of at least a window is left out at each
    cut. The statistics count the cut documents and the gaps. With `fixed`, a document stays on its side when files are
    added, removed or renamed. Equal and nearly equal documents are on the same side. A document that is nearly equal to
    documents on both sides is left out. Models are compared and promoted only with `fixed`."""
    valid_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of the windows that is kept for validation: 0.2 is a fifth. The actual share differs by at most a tenth of
    the smaller side (0.2 gives 0.18 to 0.22), or by one window. If the text does not allow this, a log line says why
    and what to set. If a side gets less than half of its share, the step ends with an error."""
    shard_tokens: int = Field(2**20, ge=16)
    """Approximate number of tokens in a shard, which is the unit that workers download."""
    seed: int = Field(0, ge=0)
    """Seed of the split. Another seed chooses other documents for validation."""
    leak_ngram: int = Field(13, ge=0, le=1000)
    """Length in tokens of the n-grams that measure contamination: the share of the validation n-grams that also occur
    in the training text. If the share is high, the validation loss measures memorization. 0 turns the measurement
    off."""

    @property
    def stride(self) -> int:
        """Number of tokens between the starts of two neighbouring windows."""
        return self.size - self.overlap

    @model_validator(mode="after")
    def _overlap_below_size(self) -> Self:
        if self.overlap >= self.size:
            raise ValueError(f"windows.overlap ({self.overlap}) must be less than windows.size ({self.size})")
        return self


class EmbedConfig(Section):
    """The embed step: a vector for each token (word2vec: skip-gram with negative sampling)."""

    size: int = Field(128, ge=1, le=16_384)
    """Dimension of the vectors. It must equal model.embedding_size if the model starts from the vectors."""
    window: int = Field(5, ge=1, le=1000)
    """Largest distance, in tokens, of two tokens that count as neighbours."""
    negative: int = Field(5, ge=1, le=1000)
    """Number of negative samples: random tokens that are drawn for each pair of neighbours."""
    epochs: int = Field(5, ge=1, le=10_000)
    """Passes over the tokens."""
    min_count: int = Field(5, ge=1)
    """Tokens that occur less often than this get no vector."""
    subsample: float = Field(1e-3, ge=0, le=1)
    """A token is frequent if its share of all tokens is above this value. Some occurrences of frequent tokens are
    skipped, because they add little information. 0 skips none."""
    learning_rate: float = Field(0.05, gt=0)
    """Learning rate at the start; it falls linearly to a tenth."""
    workers: int = Field(2, ge=1, le=1024)
    """Number of tasks that train at the same time. Their vectors are averaged after each round."""
    sync_tokens: int = Field(2**18, ge=1)
    """Approximate number of tokens that each worker trains on in a round. Higher values need less communication."""
    seed: int = Field(1, ge=0)
    """Seed of the initial vectors and of all random draws."""
