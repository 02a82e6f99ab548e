"""Tokenizers of other projects' kinds, trained here on a few pages, and texts in which their ids may differ."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from jobs.tokenizer.definition import END_OF_TEXT

TEXT = (Path(__file__).parents[1] / "data" / "scandal.txt").read_text("utf-8")
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace("{1,3}", "")
PIECES = [
    " ",
    "  ",
    "   \n\n ",
    "\n",
    "\r",
    "\t",
    "a",
    "B",
    "'s",
    "'LL",
    "é",
    "e\u0301",
    "漢",
    "😀",
    "\u00a0",
    "\u3000",
]
PIECES += [
    "\u2028",
    "\x00",
    "\x1c",
    "\x85",
    "1",
    "12345",
    "²",
    "٣",
    "\u0301",
    "ß",
    "<|",
    "|>",
    END_OF_TEXT,
    "!",
    "\u200d",
]
PIECES += [
    "\ufeff",
    "Ⅷ",
    "_",
    "Holmes",
    " the",
    "ʰ",
    "\u180e",
    "\u0378",
    "\U0010ffff",
    "▁",
    "##ing",
    "Ġ",
    "ﬁ",
    "Å",
    "\u212b",
]
PIECES += [
    "</s>",
    "[UNK]",
    "[UN",
    "<0x41>",
    "x" * 30,
    "가",
    "\u1100\u1161",
    "\u017f",
    "İ",
    "don't",
    "<tool>",
    "<to",
    "ol>",
    "Mrs.",
]

_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


def texts(count: int, seed: int = 0) -> list[str]:
    """Return lines of the text, joined pieces, and random characters."""
    draw = random.Random(seed)
    lines = [line for line in TEXT.split("\n") if line]
    found = ["", TEXT]
    while len(found) < count:
        kind = draw.random()
        if kind < 0.25:
            found.append(draw.choice(lines))
        elif kind < 0.8:
            found.append("".join(draw.choices(PIECES, k=draw.randint(1, 15))))
        else:
            found.append("".join(_character(draw) for _ in range(draw.randint(1, 20))))
    return found


def _character(draw: random.Random) -> str:
    code = draw.randrange(draw.choice([0x80, 0x800, 0x10000, 0x110000]))
    return chr(code) if not 0xD800 <= code < 0xE000 else "\ud7ff"


def edited(tokenizer: Tokenizer, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the ``tokenizer.json`` of a tokenizer after a change of its values."""
    values = json.loads(tokenizer.to_str())
    edit(values)
    return json.dumps(values).encode()


def byte_level(
    splitter: PreTokenizer | None = None, normalizer: Normalizer | None = None, added: Sequence[AddedToken] = ()
) -> Tokenizer:
    """Byte-level BPE as in GPT-2; other rules may be given."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter or pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


def isolated(pattern: str) -> PreTokenizer:
    """Split by a pattern into words, and these into bytes."""
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentencepiece(splitter: PreTokenizer | None = None, added: Sequence[AddedToken] = ()) -> Tokenizer:
    """BPE with tokens for bytes, as in Llama 2; with a pre-tokenizer there is no normalizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if splitter:
        tokenizer.pre_tokenizer = splitter
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>", END_OF_TEXT]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=specials + _BYTE_TOKENS, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    json_bytes = edited(tokenizer, lambda values: values.update(added_tokens=values["added_tokens"][: len(specials)]))
    tokenizer = Tokenizer.from_str(json_bytes.decode())
    tokenizer.add_tokens(list(added))
    return tokenizer


def unigram() -> Tokenizer:
    """Unigram as in T5, which adds a token at the end of each text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>", END_OF_TEXT]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=specials, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def wordpiece() -> Tokenizer:
    """WordPiece as in BERT, which adds a token at both ends of each text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[UNK]", "[CLS]", "[SEP]", END_OF_TEXT]
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def words() -> Tokenizer:
    """Whole words."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(vocab_size=300, special_tokens=["<unk>", END_OF_TEXT], show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def with_call_settings(tokenizer: Tokenizer) -> Tokenizer:
    """Make the file of a tokenizer truncate, pad and frame texts."""
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=20)
    special = [(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    frame = processors.TemplateProcessing("<|endoftext|> $A <|endoftext|>", special_tokens=special)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), frame])
    return tokenizer


def _twice(values: dict[str, Any]) -> None:
    values["model"]["merges"].append(values["model"]["merges"][0])


def _unreached(values: dict[str, Any]) -> None:
    """Add words that no merge gives, and that only `ignore_merges` reaches."""
    vocab = values["model"]["vocab"]
    vocab.update((word, 500 + i) for i, word in enumerate(("ĠHolmes", "Mrs.", "漢")))
    values["model"]["ignore_merges"] = True


def _shuffled(values: dict[str, Any]) -> None:
    vocab = values["model"]["vocab"]
    ids = [*vocab.values()]
    random.Random(0).shuffle(ids)
    vocab.update(zip(vocab, ids, strict=True))
    values["added_tokens"][0]["id"] = vocab[END_OF_TEXT]


def _with_hole(values: dict[str, Any]) -> None:
    vocab = values["model"]["vocab"]
    vocab.update({token: index + 70 for token, index in vocab.items() if index > 300})


def _as_gemma(values: dict[str, Any]) -> None:
    values["normalizer"] = values["normalizer"]["normalizers"][1]
    space = {"String": " "}
    values["pre_tokenizer"] = {"type": "Split", "pattern": space, "behavior": "MergedWithPrevious", "invert": False}


def _without_a_byte(values: dict[str, Any]) -> None:
    del values["model"]["vocab"]["Ĩ"]
    values["model"]["merges"] = [pair for pair in values["model"]["merges"] if "Ĩ" not in "".join(pair)]


_TOOLS = [AddedToken(text) for text in ("<tool>", "Holmes")]
_PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False)

FAST: dict[str, Callable[[], Tokenizer | bytes]] = {
    "GPT-2": byte_level,
    "prefix space": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "NFC": lambda: byte_level(normalizer=normalizers.NFC()),
    "Llama 3": lambda: byte_level(isolated(LLAMA_3)),
    "ignore_merges": lambda: edited(byte_level(isolated(LLAMA_3)), lambda v: v["model"].update(ignore_merges=True)),
    "Qwen 2": lambda: byte_level(isolated(QWEN_2), normalizers.NFC()),
    "added tokens": lambda: byte_level(added=_TOOLS),
    "ids in another order": lambda: edited(byte_level(), _shuffled),
    "holes": lambda: edited(byte_level(), _with_hole),
    "early version": lambda: edited(
        byte_level(), lambda v: v["model"].update(merges=[" ".join(pair) for pair in v["model"]["merges"]])
    ),
    "dropout": lambda: edited(byte_level(), lambda v: v["model"].update(dropout=0.5)),
    "call-time settings": lambda: with_call_settings(byte_level()),
    "unknown is end of text": lambda: edited(byte_level(), lambda v: v["model"].update(unk_token=END_OF_TEXT)),
    "Llama 2": sentencepiece,
    "Metaspace always": lambda: sentencepiece(pre_tokenizers.Metaspace(prepend_scheme="always")),
    "Metaspace with tools": lambda: sentencepiece(pre_tokenizers.Metaspace(), _TOOLS),
    "Llama 2 with special tools": lambda: sentencepiece(added=[AddedToken("<tool>", normalized=False)]),
    "Gemma": lambda: edited(sentencepiece(), _as_gemma),
    "overlapping added tokens": lambda: byte_level(
        added=[AddedToken(text, normalized=False) for text in ("the", "her", "Holm", "olmes w", "  ", " the")]
    ),
    "Metaspace first": lambda: sentencepiece(pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
}
"""Those that gigatoken encodes."""

SLOW: dict[str, Callable[[], Tokenizer | bytes]] = {
    "no pattern": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "no pre-tokenizer": lambda: edited(byte_level(), lambda v: v.update(pre_tokenizer=None)),
    "pattern that removes": lambda: byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\s+"), "removed"), _PLAIN])
    ),
    "digits": lambda: byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _PLAIN])),
    "own pattern": lambda: byte_level(isolated(r"\s+|\S+")),
    "two patterns": lambda: byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA_3), "isolated"), _PLAIN])
    ),
    "NFKC": lambda: byte_level(normalizer=normalizers.NFKC()),
    "lower case": lambda: byte_level(normalizer=normalizers.Lowercase()),
    "whole words": lambda: byte_level(added=[AddedToken(word, single_word=True) for word in ("the", "Holmes")]),
    "stripped": lambda: byte_level(added=[AddedToken("the", lstrip=True), AddedToken("Holmes", rstrip=True)]),
    "competing added tokens": lambda: byte_level(
        added=[AddedToken("the"), AddedToken("he", normalized=False), AddedToken("mes ", normalized=False)]
    ),
    "normalized added tokens": lambda: byte_level(normalizer=normalizers.NFC(), added=[AddedToken("e\u0301")]),
    "merge twice": lambda: edited(byte_level(), _twice),
    "unreached words": lambda: edited(byte_level(), _unreached),
    "missing byte": lambda: edited(byte_level(), _without_a_byte),
    "other id": lambda: edited(byte_level(added=_TOOLS), lambda v: v["added_tokens"][1].update(id=900)),
    "end of word": lambda: edited(byte_level(), lambda v: v["model"].update(end_of_word_suffix="</w>")),
    "no byte fallback": lambda: edited(sentencepiece(), lambda v: v["model"].update(byte_fallback=False)),
    "Llama 2 with tools": lambda: sentencepiece(added=_TOOLS),
    "missing byte token": lambda: edited(sentencepiece(), lambda v: v["model"]["vocab"].pop("<0xCA>")),
    "Unigram": unigram,
    "WordPiece": wordpiece,
    "words": words,
    "words with call-time settings": lambda: with_call_settings(words()),
}
"""Those that `tokenizers` has to encode."""


def make(name: str) -> bytes:
    """Return the ``tokenizer.json`` of a name in `FAST` or `SLOW`."""
    made = (FAST | SLOW)[name]()
    return made if isinstance(made, bytes) else made.to_str().encode()
