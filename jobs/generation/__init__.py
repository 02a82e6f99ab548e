"""Text from a model: decoding, sampling, stopping."""
