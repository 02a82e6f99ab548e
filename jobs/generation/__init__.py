"""Text generation: decoders, sampling, and the continuations of prompts."""
