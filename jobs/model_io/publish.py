"""Publish a trained model: write its folder with the model card and the statistics, and the folder as one zip file."""

from __future__ import annotations

from jobs.lake import store
from jobs.lake.layout import Run
from jobs.model.language_model import LanguageModel
from jobs.model_io.archive import pack
from jobs.model_io.card import Facts, card_stats, write_card
from jobs.model_io.folder import CARD, TRAINING_STATS, save_model, to_json
from jobs.tokenizer.tokenizer import Tokenizer


def publish_model(run: Run, model: LanguageModel, tokenizer: Tokenizer, facts: Facts) -> None:
    """Write the run's model folder in place of an earlier one, then ``model.zip``.

    Args:
        run: The run whose `model` and `model_archive` are written.
        model: The trained weights.
        tokenizer: The tokenizer that the model was trained with.
        facts: The content of the model card.
    """
    about = {CARD: write_card(facts).encode(), TRAINING_STATS: to_json(card_stats(facts.stats))}
    store.write_bytes(run.model_archive, pack(save_model(run.model, model, tokenizer, about)))
