"""A warm start: the weights of an earlier model."""

from __future__ import annotations

import hashlib
import logging

from jobs.errors import InputError
from jobs.model.language_model import LanguageModel
from jobs.model_io.folder import load_model
from jobs.tokenizer.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def take_weights(model: LanguageModel, uri: str, tokenizer: Tokenizer) -> None:
    """Put the weights of the model at `uri` into `model`, which is to be trained on tokens of `tokenizer`.

    Raises:
        InputError: if that model cannot be read, has another tokenizer or another shape.
    """
    earlier, its_tokenizer = load_model(uri)
    ours, theirs = (hashlib.sha256(each.json).hexdigest()[:12] for each in (tokenizer, its_tokenizer))
    if ours != theirs:
        raise InputError(
            f"train.init ({uri}): its tokenizer ({theirs}) is not that of this run ({ours}); tokenize with"
            " tokenize.tokenizer=inherit, or start from random weights"
        )
    shapes, its_shapes = ({name: tuple(t.shape) for name, t in m.state_dict().items()} for m in (model, earlier))
    for name in sorted(shapes.keys() | its_shapes.keys()):
        if shapes.get(name) != its_shapes.get(name):
            raise InputError(
                f"train.init ({uri}): {name} is {its_shapes.get(name, 'absent')} there and {shapes.get(name, 'absent')}"
                " here; set model.* as that model has it"
            )
    model.load_state_dict(earlier.state_dict())
    log.info("training starts from the weights of %s", uri)
