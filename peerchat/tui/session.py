"""What runs the chat: takes prompts from the queue to the node, one at a time.

No widgets here. The screen calls `run_next` in a worker and hears of every change of
a turn through one callback; cancelling that worker is how an answer is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from peerchat.api import (
    Answer,
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Node,
    Phase,
    Progress,
)

from .conversation import Conversation, Turn, TurnState
from .wording import Words, failure_words

_log = logging.getLogger(__name__)

YIELD_EVERY_EVENTS = 16
"""After so many events of a burst the loop gets a turn, for keys and drawing."""

CLOSE_TIMEOUT_S = 5.0
"""How long a stopped answer may take to close; the next prompt waits for it."""

RETRY_DEFAULT_S = 60
"""The wait after a refusal by the limit that names no time: one default window."""


class Session:
    """One chat with one node.

    Args:
        on_change: called on the app's loop after every change of a turn.
    """

    def __init__(
        self,
        node: Node,
        clock: Callable[[], float],
        on_change: Callable[[Turn], None],
    ) -> None:
        self.conversation = Conversation()
        self.running: Turn | None = None
        self.blocked_until_s = 0.0
        """When the limit lets the next prompt through, on the app's clock."""
        self.needs_login = False
        self.is_held = False
        """The node is on its way into another swarm: nothing is sent."""
        self._node = node
        self._clock = clock
        self._on_change = on_change

    def blocked_s(self) -> float:
        """Seconds until the limit lets the next prompt through; 0 when it does now."""
        return max(0.0, self.blocked_until_s - self._clock())

    def can_run(self) -> bool:
        """A prompt waits, nothing runs, and the node would take it."""
        state = self._node.state()
        return (
            self.running is None
            and state.phase is Phase.READY
            and state.account is not None
            and not self.needs_login
            and not self.is_held
            and self.blocked_s() == 0
            and bool(self.conversation.queue)
        )

    def forget_before(self, mark: int) -> None:
        """The node is in another swarm: what was true of the last one is not of it."""
        self.conversation.forget_before(mark)
        self.needs_login = False
        self.blocked_until_s = 0.0

    async def run_next(self) -> None:
        """Send the prompt that waits longest and follow its answer to the end.

        Never raises `ApiError`: a failure ends up in the turn. Cancelling stops the
        answer on every hop and keeps what came.
        """
        if self.running is not None or not self.conversation.queue:
            return
        turn = self.conversation.queue[0]
        self.running = turn
        turn.begin(self._clock())
        self._on_change(turn)
        try:
            answer = self._node.ask(
                turn.prompt, model=turn.model, history=self.conversation.history(turn)
            )
        except ApiError as error:
            self._fail(turn, error)
        else:
            await self._follow(turn, answer)
        finally:
            self.running = None
            self._on_change(turn)

    async def _follow(self, turn: Turn, answer: Answer) -> None:
        try:
            await self._consume(turn, answer)
        except ApiError as error:
            self._fail(turn, error)
        except asyncio.CancelledError:
            turn.end(TurnState.STOPPED, self._clock())
            self._on_change(turn)
            raise
        except Exception:
            _log.exception("An answer failed in a way that nobody foresaw")
            self._fail(turn, ApiError(ErrorCode.INTERNAL, "See the log"))
        finally:
            await self._close(answer)

    async def _consume(self, turn: Turn, answer: Answer) -> None:
        seen = 0
        async for event in answer:
            self._take(turn, event)
            self._on_change(turn)
            seen += 1
            if turn.is_too_long:
                turn.problem = Words("Stopped: the answer is too long to show")
                turn.end(TurnState.STOPPED, self._clock())
                return
            if seen % YIELD_EVERY_EVENTS == 0:
                await asyncio.sleep(0)
        if turn.usage is None:
            raise ApiError(ErrorCode.PEER_LOST, "The answer broke off")
        is_stopped = turn.usage.finish_reason == "cancelled"
        turn.end(TurnState.STOPPED if is_stopped else TurnState.DONE, self._clock())

    def _take(self, turn: Turn, event: AnswerEvent) -> None:
        match event:
            case Fragment(text, is_thinking):
                turn.add(text, is_thinking=is_thinking)
            case Progress():
                turn.progress = event
                turn.is_continued |= event.state == "retrying" and turn.has_arrived
            case Finished(usage=usage):
                turn.usage = usage

    def _fail(self, turn: Turn, error: ApiError) -> None:
        """Put the failure into the turn, or make the turn wait when waiting helps."""
        if error.code is ErrorCode.RATE_LIMITED and not turn.has_arrived:
            self._wait_for_limit(turn, error)
        elif error.code is ErrorCode.UNAUTHORIZED and not turn.has_arrived:
            self.needs_login = True
            turn.requeue()
        elif error.code is ErrorCode.STOPPED:
            turn.end(TurnState.STOPPED, self._clock())
        else:
            turn.problem = failure_words(error)
            turn.end(TurnState.FAILED, self._clock())

    def _wait_for_limit(self, turn: Turn, error: ApiError) -> None:
        wait_s = error.retry_after_s
        if wait_s is None:
            wait_s = error.rate_limit.reset_s if error.rate_limit else RETRY_DEFAULT_S
        self.blocked_until_s = self._clock() + max(1, wait_s)
        turn.requeue()

    async def _close(self, answer: Answer) -> None:
        """Close an answer for good; a node that hangs here must not hang the app."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await answer.aclose()
        except (ApiError, TimeoutError) as error:
            _log.warning("An answer did not close: %s", error)
