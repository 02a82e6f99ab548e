"""The choice of the form in which a trained model generates text."""

from __future__ import annotations

from jobs.errors import InputError
from jobs.generation.context_decoder import InferenceContext
from jobs.generation.decoder import InferenceLlama
from jobs.generation.stream import InferenceModel
from jobs.model.context import ContextModel
from jobs.model.language_model import LanguageModel
from jobs.model.llama import Llama


def to_inference(model: LanguageModel, dtype: str = "float32") -> InferenceModel:
    """Convert a trained model to the form that generates text.

    Args:
        model: The model, in evaluation mode.
        dtype: The type of the matrix products: ``float32``, ``bfloat16``, or ``int8`` for the weights of a transformer.

    Raises:
        InputError: if `dtype` is ``int8`` and the model does not support it.
    """
    if isinstance(model, Llama):
        return InferenceLlama(model, dtype)
    if dtype == "int8":
        raise InputError("generate.dtype=int8 needs model.kind=transformer; use float32 or bfloat16")
    assert isinstance(model, ContextModel)
    return InferenceContext(model, dtype)
