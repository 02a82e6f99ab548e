"""The service: an HTTP server that answers completions requests of OpenAI's clients with a model."""
