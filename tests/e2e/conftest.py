"""Fixtures of the end-to-end tests."""

from tests.processes import dht, ollama_stub, run, spawn

__all__ = ["dht", "ollama_stub", "run", "spawn"]
