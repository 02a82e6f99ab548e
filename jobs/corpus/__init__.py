"""Text: corpora and documents."""
