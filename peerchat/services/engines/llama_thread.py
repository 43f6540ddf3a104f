"""Work of llama.cpp in a thread, as an iteration on the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Executor
from typing import Any

from .base import invalid_request
from .llama_server import Piece

Work = Callable[[Mapping[str, Any], Callable[[Piece], bool]], None]


async def pieces_of(
    executor: Executor, work: Work, body: Mapping[str, Any]
) -> AsyncGenerator[Piece, None]:
    """Run ``work`` in a thread and give its pieces.

    Closing this, or cancelling who waits for a piece, stops the work and waits for its
    thread, so that the slot is free afterwards. Nothing piles up without end: an answer
    has no more pieces than tokens were asked for.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()
    is_stopped = threading.Event()

    def on_piece(piece: Piece) -> bool:
        loop.call_soon_threadsafe(queue.put_nowait, piece)
        return is_stopped.is_set()

    def run() -> None:
        last: Exception | None = None
        try:
            work(body, on_piece)
        except Exception as error:
            last = error
        loop.call_soon_threadsafe(queue.put_nowait, last)

    running = loop.run_in_executor(executor, run)
    try:
        while (piece := await queue.get()) is not None:
            if isinstance(piece, Exception):
                # llama.cpp raises for requests that it does not take.
                raise invalid_request(f"llama.cpp refused the prompt: {piece}")
            yield piece
    finally:
        is_stopped.set()
        await asyncio.wait([running])
