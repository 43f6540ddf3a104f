"""Takes prompts from the queue to the node, and back to where they were typed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from textual.worker import Worker, WorkerCancelled

from peerchat.tui.conversation import QUEUE_MAX, Turn, TurnState

if TYPE_CHECKING:
    from .chat import ChatScreen


class Dispatch:
    """Runs the chat's session in a worker, one answer at a time.

    Args:
        prompt_max: bytes of the longest prompt that any hop accepts.
    """

    def __init__(self, chat: ChatScreen, prompt_max: int) -> None:
        self._chat = chat
        self._prompt_bytes_max = prompt_max
        self._worker: Worker[None] | None = None
        self._is_open = False

    def open(self) -> None:
        """Prompts may go out from now on."""
        self._is_open = True

    async def queue(self, text: str) -> bool:
        """Let a prompt wait for its turn; refused, it goes back and is explained."""
        chat = self._chat
        if len(text.encode(errors="replace")) > self._prompt_bytes_max:
            limit = self._prompt_bytes_max // 1024
            problem = f"The prompt is longer than {limit} KiB. Shorten it."
        elif chat.session.conversation.add(text, chat.model) is None:
            problem = f"{QUEUE_MAX} prompts wait already. Wait, or take one back: Esc."
        else:
            await chat.show_turns()
            self.pump()
            return True
        chat.prompt.give_back(text)
        chat.tell(problem)
        return False

    def pump(self) -> None:
        """Start the next prompt if one waits and can go."""
        is_busy = self._worker is not None and self._worker.is_running
        if self._is_open and not is_busy and self._chat.session.can_run():
            self._worker = self._chat.run_worker(
                self._run_next(), group="answer", exit_on_error=False
            )

    async def stop(self) -> None:
        """Stop the answer, or take back the newest prompt that waits."""
        waiting = self._chat.session.conversation.queue
        if self._chat.session.running is not None and self._worker is not None:
            self._worker.cancel()
        elif waiting:
            await self.take_back(waiting[-1])

    async def close(self) -> None:
        """Stop the running answer and wait until its request is closed; for the end."""
        self._is_open = False
        await self._stop_answer()

    @asynccontextmanager
    async def moving(self) -> AsyncIterator[None]:
        """Go into another swarm: nothing said here goes there, nothing typed is lost.

        What runs is stopped and what waits comes back to the prompt. What is typed
        meanwhile waits; when the move fails, that comes back too: it was meant for
        other peers than those of the swarm that one is still in.
        """
        session = self._chat.session
        session.is_held = True
        try:
            await self._stop_answer()
            await self._take_all_back()
            mark = session.conversation.mark()
            self._chat.refresh_state()
            yield
        except BaseException:
            await self._take_all_back()
            raise
        else:
            session.forget_before(mark)
        finally:
            session.is_held = False
            self._chat.refresh_state()

    async def take_back(self, turn: Turn) -> None:
        """Return a prompt, of which nothing came, to where it was typed."""
        self._chat.session.conversation.remove(turn)
        self._chat.prompt.give_back(turn.prompt)
        await self._chat.show_turns()

    async def _take_all_back(self) -> None:
        for turn in reversed(self._chat.session.conversation.queue):
            await self.take_back(turn)

    async def _stop_answer(self) -> None:
        worker = self._worker
        if worker is not None and worker.is_running:
            worker.cancel()
            with suppress(WorkerCancelled):
                await worker.wait()

    async def _run_next(self) -> None:
        try:
            await self._chat.session.run_next()
        finally:
            self._chat.call_later(self._after_answer)

    async def _after_answer(self) -> None:
        for turn in list(self._chat.session.conversation.turns):
            if turn.state is TurnState.STOPPED and not turn.has_arrived:
                await self.take_back(turn)
        await self._chat.answer_ended()
        self.pump()
