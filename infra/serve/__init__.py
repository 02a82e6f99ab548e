"""The service for queries: a model behind the completions interface of OpenAI's clients."""
