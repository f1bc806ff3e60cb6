"""A server of steered models in this process: continuous batching on Transformers, OpenAI's API."""
