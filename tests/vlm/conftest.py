"""As for the language models: one thread, a cache of its own, nothing of the Hugging Face hub."""

from tests.llm.conftest import _one_thread, cache

__all__ = ["_one_thread", "cache"]
