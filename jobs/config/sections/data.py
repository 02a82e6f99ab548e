"""From text to windows and vectors."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from jobs.config.sections.base import Section


class TokenizeConfig(Section):
    """From text to tokens."""

    documents: Literal["paragraph", "line", "record", "file"] = "paragraph"
    """What a document is: text between blank lines, a line, a record (of .jsonl or .parquet; a text file is one
    record), or a whole text file. Paragraphs and lines divide records too."""
    input: Literal["text", "ids"] = "text"
    """`ids`: the files hold tokens already, as numbers or as `word,[ids],frequency`; needs tokenize.kind=word."""
    field: str = Field("text", min_length=1)
    """The field of .jsonl and the column of .parquet that hold the text."""
    invalid_utf8: Literal["refuse", "replace"] = "refuse"
    """What is not UTF-8 (or half a surrogate pair in JSON) is refused, or replaced by U+FFFD and counted."""
    drop_gutenberg: bool = False
    """Leave out the headers and footers of Project Gutenberg."""
    normalize_nfc: bool = False
    """Bring text into Unicode's normal form C."""
    min_document_bytes: int = Field(0, ge=0)
    """Drop documents that are shorter."""
    max_document_bytes: int | None = Field(None, ge=1)
    """Drop documents that are longer."""
    drop_duplicates: bool = False
    """Keep the first of documents with the same text. No source is then re-used, for what is kept depends on others."""
    drop_near_duplicates: bool = False
    """Keep the first of documents with nearly the same words too (MinHash: of two that share 80% of their runs of five
    words, the later one is found 9 times in 10). As with drop_duplicates, no source is re-used."""
    kind: Literal["bpe", "word", "char"] = "bpe"
    """What a token is, where a vocabulary is trained: byte-level BPE, which knows every text; a word; a character.
    Words and characters that the vocabulary lacks become `<unk>`."""
    lowercase: bool = False
    """Turn words or characters into lower case."""
    min_frequency: int = Field(1, ge=1)
    """Rarer words or characters are not in the vocabulary."""
    tokenizer: str = Field("train", min_length=1)
    """`train` to train a vocabulary on the corpus; `inherit` to take the champion's, else that of the latest run on
    this corpus, else train; or the path or URI of a `tokenizer.json`."""
    vocab_size: int = Field(8192, ge=3, le=1_000_000)
    """Most tokens of a trained vocabulary: 256 bytes, the end-of-text token and merges; or the end-of-text token,
    `<unk>` and words or characters."""
    train_bytes: int = Field(256 * 2**20, ge=1024)
    """Train BPE on an even sample of the corpus of at most so many bytes; words and characters are counted in all."""
    split_bytes: int = Field(8 * 2**20, ge=4096)
    """A file is cut into ranges of about so many bytes, each one task; compressed files and documents that are whole
    files are not cut."""

    @model_validator(mode="after")
    def _bytes_in_vocabulary(self) -> Self:
        if self.kind == "bpe" and self.vocab_size < 258:
            raise ValueError(f"tokenize.vocab_size ({self.vocab_size}) must be at least 258 for tokenize.kind=bpe")
        return self

    @model_validator(mode="after")
    def _ids_are_words(self) -> Self:
        if self.input == "ids" and self.kind != "word":
            raise ValueError(f"tokenize.input=ids needs tokenize.kind=word, not {self.kind}: each id is one token")
        return self


class WindowsConfig(Section):
    """From tokens to windows of training and validation."""

    size: int = Field(128, ge=1, le=65_536)
    """Tokens of context in a window; the target is the token after each."""
    overlap: int = Field(0, ge=0)
    """Tokens that neighbouring windows share; the stride is size minus overlap."""
    over: Literal["stream", "document"] = "stream"
    """Windows over the stream of joined documents, or inside documents (shorter ones are skipped and counted)."""
    last: Literal["drop", "shift"] = "drop"
    """What is too short for one window more, at the end of the stream or of a document, is dropped; or the last window
    is shifted back so that it ends there."""
    split: Literal["auto", "source", "block", "hash", "tail"] = "auto"
    """How documents are split: by source file, contiguous blocks, document hash or the tail; `auto` takes source
    when there are enough files, else block."""
    valid_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of the corpus that is kept for validation."""
    shard_tokens: int = Field(2**20, ge=16)
    """A shard holds about so many tokens of the stream."""
    seed: int = Field(0, ge=0)
    """Seed of the split."""
    leak_ngram: int = Field(13, ge=0, le=1000)
    """Tell which share of the validation text's runs of so many tokens stands in the training text too; 0 does not."""

    @property
    def stride(self) -> int:
        """Distance of the starts of neighbouring windows, in tokens."""
        return self.size - self.overlap

    @model_validator(mode="after")
    def _overlap_below_size(self) -> Self:
        if self.overlap >= self.size:
            raise ValueError(f"windows.overlap ({self.overlap}) must be less than windows.size ({self.size})")
        return self


class EmbedConfig(Section):
    """How vectors of tokens are learned (word2vec: skip-gram with negative sampling)."""

    size: int = Field(128, ge=1, le=16_384)
    """Numbers in a vector; model.embedding_size, if a model is to start from it."""
    window: int = Field(5, ge=1, le=1000)
    """Neighbours of a token stand at most so many tokens away."""
    negative: int = Field(5, ge=1, le=1000)
    """Negative samples for each pair of neighbours."""
    epochs: int = Field(5, ge=1, le=10_000)
    """Passes over the tokens."""
    min_count: int = Field(5, ge=1)
    """Tokens that occur less often get no vector."""
    subsample: float = Field(1e-3, ge=0, le=1)
    """Tokens with a greater share of the text than this are thinned out; 0 keeps them all."""
    learning_rate: float = Field(0.05, gt=0)
    """First learning rate; it falls linearly to a tenth."""
    workers: int = Field(2, ge=1, le=1024)
    """Tasks of a round; their vectors are averaged at its end."""
    sync_tokens: int = Field(2**18, ge=1)
    """In a round each worker trains on about so many tokens."""
    seed: int = Field(1, ge=0)
    """Seed of initial vectors and of all draws."""
