"""A batch of continuations that are generated together: each step draws one token for every continuation.

Each continuation has its own settings and random numbers. It may join the batch after any step, and leaves the batch
when it ends. So a new continuation does not wait until all others have ended.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.generation.continuation import Continuation, GenerationSettings
from jobs.generation.inference import InferenceModel
from jobs.generation.sampling import Sampler, Sampling
from jobs.tokenizer.tokenizer import Tokenizer


@dataclass(eq=False)
class Member:
    """One continuation in a batch, with its prompt, settings and sampler."""

    sample: Continuation
    context: list[int]
    """The tokens of the prompt that the model reads. There is at least one."""
    settings: GenerationSettings
    sampler: Sampler
    """Draws the tokens, with this continuation's own random numbers."""
    needs_text: bool = True
    """Whether the text is decoded after each token. If not, it is decoded once, at the end."""
    seen: Tensor | None = None
    """A boolean mask (V) of the tokens in prompt and continuation. None if there is no repetition penalty."""


class Batch:
    """A batch of continuations, which is empty at first. Only one thread at a time may use it."""

    @torch.inference_mode()
    def __init__(self, model: InferenceModel, tokenizer: Tokenizer) -> None:
        self.members: list[Member] = []
        """The continuations that have not ended, in the order of the batch's rows."""
        self._tokenizer = tokenizer
        self._stream = model.stream()
        self._drawn: Tensor | None = None
        """The tokens (B) drawn last. None if the model has already read them."""
        self._groups: list[tuple[Sampler, list[int]]] = []
        """One sampler for each distinct `Sampling` in the batch, and the rows for which it draws tokens."""

    @torch.inference_mode()
    def join(self, members: Sequence[Member]) -> None:
        """Add `members` to the batch, and pass their prompts to the model."""
        self._feed()
        self._stream.join([member.context for member in members])
        for member in members:
            if member.settings.sampling.repetition_penalty != 1:
                member.seen = torch.zeros_like(self._stream.logits[0], dtype=torch.bool)
                member.seen[member.context] = True
        self.members += members
        self._group()

    @torch.inference_mode()
    def step(self) -> list[Member]:
        """Draw one token for each member of the batch, and remove the members that ended.

        Return the members that got a token, whether they have ended or not.
        """
        self._feed()
        members = self.members
        logits = self._without_early_end(self._stream.logits)
        tokens = self._draw(logits)
        _append(members, tokens, self._stream.logits)
        for member in members:
            _finish(member, self._tokenizer)
        self._drawn = tokens
        self.remove([member for member in members if member.sample.finish is not None])
        return members

    @torch.inference_mode()
    def remove(self, members: Collection[Member]) -> None:
        """Remove `members`. The last rows of the batch move to the free rows, so that few rows are copied."""
        if not members:
            return
        rows = list(range(len(self.members)))
        for row in reversed([row for row, member in enumerate(self.members) if member in members]):
            rows[row] = rows[-1]
            rows.pop()
        self.members = [self.members[row] for row in rows]
        self._stream.keep(rows)
        if self._drawn is not None:
            self._drawn = self._drawn[rows]
        self._group()

    def _feed(self) -> None:
        """Pass the last drawn tokens to the model, if it has not read them yet."""
        tokens, self._drawn = self._drawn, None
        if tokens is None or not self.members:
            return
        for member, token in zip(self.members, tokens.tolist(), strict=True):
            if member.seen is not None:
                member.seen[token] = True
        self._stream.feed(tokens)

    def _group(self) -> None:
        groups: dict[Sampling, list[int]] = {}
        for row, member in enumerate(self.members):
            groups.setdefault(member.settings.sampling, []).append(row)
        self._groups = [(Sampler.joined([self.members[row].sampler for row in rows]), rows) for rows in groups.values()]

    def _draw(self, logits: Tensor) -> Tensor:
        """Return the next tokens (B) for `logits` (B, V)."""
        tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        for sampler, rows in self._groups:
            seen = [seen for row in rows if (seen := self.members[row].seen) is not None]
            chosen = logits if len(self._groups) == 1 else logits[rows]
            tokens[rows] = sampler.draw(chosen, torch.stack(seen) if seen else None)
        return tokens

    def _without_early_end(self, logits: Tensor) -> Tensor:
        """Return `logits` (B, V), with end-of-text at minus infinity for rows with fewer than `min_new_words` words."""
        lacking = [not member.sample.has_words(member.settings.min_new_words) for member in self.members]
        if not any(lacking):
            return logits
        logits = logits.clone()
        logits[torch.tensor(lacking, device=logits.device), self._tokenizer.end_of_text] = -math.inf
        return logits


def _append(members: Sequence[Member], tokens: Tensor, logits: Tensor) -> None:
    """Append to each continuation its token of `tokens` (B), with its log probability from `logits` (B, V)."""
    totals = logits.logsumexp(dim=-1)
    log_probabilities = logits.gather(1, tokens[:, None]).squeeze(1) - totals
    for row, (member, token, log_probability) in enumerate(
        zip(members, tokens.tolist(), log_probabilities.tolist(), strict=True)
    ):
        member.sample.tokens.append(token)
        member.sample.log_probabilities.append(log_probability)
        if member.settings.num_likeliest:
            values, chosen = logits[row].topk(min(member.settings.num_likeliest, logits.shape[1]))
            pairs = zip(chosen.tolist(), (values - totals[row]).tolist(), strict=True)
            member.sample.likeliest.append(dict(pairs))


def _finish(member: Member, tokenizer: Tokenizer) -> None:
    """Set `finish` if the last token ended the continuation.

    If `needs_text` is set, decode the text now. Otherwise, decode it only when the continuation has ended.
    """
    sample, settings = member.sample, member.settings
    if sample.tokens[-1] == tokenizer.end_of_text:
        sample.finish = "end_of_text"
    if member.needs_text:
        sample.decode(tokenizer, settings)
    if sample.finish is None and len(sample.tokens) >= settings.max_tokens:
        sample.finish = "max_new_tokens"
    if sample.finish is not None and not member.needs_text:
        sample.decode(tokenizer, settings)
