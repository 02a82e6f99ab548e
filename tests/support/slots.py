"""Text whose structure is known: words of a class stand in the same slots of sentences, in no others."""

import random

CLASSES = {
    "subject": "captain sailor farmer baker",
    "verb": "carries finds buys sells",
    "adjective": "heavy little broken golden",
    "object": "basket lantern hammer kettle",
    "place": "harbour village market forest",
}


def text_of_slots(sentences: int = 6000, seed: int = 0) -> str:
    """Paragraphs of one sentence each."""
    draw = random.Random(seed)
    words = {name: members.split() for name, members in CLASSES.items()}
    order = ("subject", "verb", "adjective", "object", "place")
    return "\n\n".join(
        " ".join(("the", *(draw.choice(words[name]) for name in order[:4]), "near the", draw.choice(words["place"])))
        for _ in range(sentences)
    )
