"""The nearest neighbours of words in a run's embeddings, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.datasets.publish import used_datasets
from jobs.datasets.tokens import TokensDataset
from jobs.embeddings.files import read_embeddings, token_names
from jobs.embeddings.uses import Neighbours, find_token
from jobs.lake.layout import Lake, Run


def neighbours_of(run: Run, words: Sequence[str], count: int = 8) -> Iterator[str]:
    """Yield the folder of the embeddings, then one line for each word: its nearest tokens with their cosines.

    Raises:
        InputError: if a word is not one token with a vector.
    """
    folder_uri = Lake(run.lake_uri).dataset("embeddings", used_datasets(run)["embeddings"])
    yield f"embeddings {folder_uri}"
    if not words:
        return
    tokenizer = TokensDataset.of_run(run).read_tokenizer()
    names, neighbours = token_names(tokenizer.json), Neighbours(read_embeddings(folder_uri))
    ids = {name: token_id for token_id, name in enumerate(names)}
    for word in words:
        nearest = neighbours.nearest(find_token(word, tokenizer.encode, names, neighbours), count)
        yield f"{word:<12}" + "  ".join(
            f"{tokenizer.decode([ids[name]]).strip()} {cosine:.2f}" for name, cosine in nearest
        )
