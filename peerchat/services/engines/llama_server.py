"""llama.cpp in this process: one loaded model, asked from threads.

`xllamacpp` (extra ``peerchat[llama]``) gives functions that block their thread and
call back for each piece; a callback that returns True stops the work. While it reads
a prompt it calls back only when progress was asked for, once a batch, so that batches
are small. It also opens a server of its own, which nobody is to reach: it gets a socket
in a private folder, or on Windows a key that nobody knows.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .base import engine_failed

BATCH_TOKENS = 256
"""A stop takes effect after so many tokens of a prompt."""

Piece = dict[str, Any]


class LlamaServer:
    """A model that is loaded; making one takes as long as the loading does.

    Args:
        path: the GGUF file.
        slots: answers at once.
        context_tokens: for each slot.
        is_embedder: it makes vectors instead of answers.

    Raises:
        ApiError: ENGINE_FAILED when llama.cpp cannot load the file.
    """

    def __init__(
        self, path: Path, *, slots: int, context_tokens: int, is_embedder: bool
    ) -> None:
        import xllamacpp

        self._folder = Path(tempfile.mkdtemp(prefix="peerchat-llama-"))
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel = slots
        params.n_ctx = context_tokens * slots
        # A vector needs its whole text in one batch.
        batch = context_tokens if is_embedder else BATCH_TOKENS
        params.n_batch = params.n_ubatch = batch
        params.embedding = is_embedder
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
        # Nobody may see from the time an answer takes what another one asked.
        params.cache_prompt = False
        params.cache_ram_mib = 0
        params.warmup = False
        # It would write into the middle of the app's screen.
        params.verbosity = 0
        params.ui = False
        params.endpoint_slots = False
        params.api_keys = [secrets.token_hex(16)]
        if sys.platform != "win32":
            params.hostnames = [str(self._folder / "llama.sock")]
        try:
            self._server = xllamacpp.Server(params)
        except Exception as error:
            self.close()
            raise engine_failed(f"llama.cpp cannot load {path.name}: {error}") from None

    def chat(self, body: Mapping[str, Any], on_piece: Callable[[Piece], bool]) -> None:
        """Answer; blocks until the end or until ``on_piece`` returned True."""
        self._server.handle_chat_completions(dict(body), on_piece)

    def complete(
        self, body: Mapping[str, Any], on_piece: Callable[[Piece], bool]
    ) -> None:
        """Go on with a text, without a template; blocks as `chat` does."""
        self._server.handle_completions(dict(body), on_piece)

    def embed(self, body: Mapping[str, Any]) -> Piece:
        """Make vectors; blocks, and cannot be stopped."""
        answer: Piece = self._server.handle_embeddings(dict(body))
        return answer

    def close(self) -> None:
        """Unload; blocks until running answers have ended."""
        self._server = None
        shutil.rmtree(self._folder, ignore_errors=True)


def threads() -> int:
    """All cores but one: with none left over llama.cpp is slower by far."""
    return max(1, (os.cpu_count() or 2) - 1)
