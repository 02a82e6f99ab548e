"""Checks the tokenizer, embeddings and earlier model that training will start from, before any text is tokenized.

The checks in `jobs.sources.inputs`, which need no heavy library, run first. Heavy libraries take seconds to load, so
this module imports them only where they are needed. A mistake in the corpus or the prompts is thus reported at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from jobs.config import Config
from jobs.config.sections.model import EMBED
from jobs.lake import store
from jobs.lake.layout import Lake, Pipeline, Run
from jobs.lake.runs import used_datasets
from jobs.sources.earlier import inherited_pipeline, inherits
from jobs.sources.fixed_split import check_split
from jobs.sources.inputs import INHERIT, TRAIN, check_inputs

if TYPE_CHECKING:
    from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def check_training_inputs(run: Run, config: Config) -> None:
    """Check tokenizer, prompts, embeddings and earlier model of a run, unless its training has begun.

    A vocabulary that the tokenize step learns is checked when this function is called again after that step. In a run
    that uses a model (`use.model`), only this model and the prompts are checked.

    Raises:
        InputError: if a check fails. The message names the setting, what is wrong and what to do.
    """
    if store.list_files(run.train):
        return
    lake = Lake(run.lake_uri)
    prompts, start = check_inputs(config, lake)
    if not config.trains:
        return
    check_split(config, Pipeline.of(run))
    tokenizer = known_tokenizer(run, config)
    if tokenizer is not None:
        if "tokens" not in used_datasets(run) or _learns(run, config):  # else an earlier check has warned
            _warn_of_long_prompts(prompts, tokenizer, config.windows.size)
        if start is not None:
            from jobs.training.warm_start import check_tokenizer

            check_tokenizer(tokenizer, start)
    elif start is not None and config.tokenize.tokenizer == TRAIN:
        log.warning(
            "train.init: the earlier model needs its own vocabulary, but this run learns one, which is the same only if"
            " the text is the same; set tokenize.tokenizer to inherit, or to the earlier model's tokenizer.json"
        )
    if config.train.embeddings not in (None, EMBED):
        from jobs.embeddings.files import read_embeddings, token_names
        from jobs.embeddings.uses import match_tokens

        place = str(config.train.embeddings)
        names = token_names(tokenizer.json) if tokenizer is not None else None
        match_tokens(read_embeddings(place), names, config.model.embedding_size, place)


def known_tokenizer(run: Run, config: Config) -> Tokenizer | None:
    """Return the tokenizer that has encoded or will encode the text of a run. Return None if it is not learned yet."""
    lake, name = Lake(run.lake_uri), config.tokenize.tokenizer
    is_known = "tokens" in used_datasets(run)
    if name == TRAIN and not is_known:
        return None
    from jobs.datasets.reuse import earlier_tokens, find_tokenizer
    from jobs.datasets.tokens import TokensDataset

    if is_known:
        return TokensDataset.of_run(run).read_tokenizer()
    earlier = earlier_tokens(lake, config.corpus, run) if name == INHERIT else ()
    return find_tokenizer(name, inherited_pipeline(run, config), earlier)[0]


def _learns(run: Run, config: Config) -> bool:
    """Return whether a run learns its vocabulary in the tokenize step."""
    name = config.tokenize.tokenizer
    return name == TRAIN or (name == INHERIT and not inherits(run, config))


def _warn_of_long_prompts(prompts: tuple[str, ...], tokenizer: Tokenizer, size: int) -> None:
    long = [length for prompt in prompts if (length := len(tokenizer.encode(prompt))) > size]
    if long:
        log.warning(
            "%d of %d prompts do not fit the context: the longest has %d tokens, of which the last %d are read",
            *(len(long), len(prompts), max(long), size),
        )
