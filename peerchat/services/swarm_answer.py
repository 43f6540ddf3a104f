"""An answer of one peer: by ``peerchat/stream``, else by the unary method."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from peerchat.api import (
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    PromptRequest,
    Role,
    Usage,
)
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey
from peerchat.replies import rate_limit_of, reply_untrusted, text_of
from peerchat.sanitize import display_text

from .prompt_requests import needs_version_2

if TYPE_CHECKING:
    from .prompt_client import PromptStreamClient, RemoteAnswer
    from .swarm import Swarm

UNARY_TIMEOUT_S = 300.0
"""A Node.js worker says nothing until the whole answer is there."""


class SwarmAnswer:
    """An `api.Answer`; nothing happens before its first step.

    One task iterates; `aclose` may come from any task and ends the iteration.
    """

    def __init__(
        self,
        swarm: Swarm,
        key: PublicKey,
        request: PromptRequest,
        token: str,
        role: Role,
        user: str,
    ) -> None:
        self.request_id = request.request_id
        self._swarm = swarm
        self._key = key
        self._request = request
        self._token = token
        self._role = role
        self._user = user
        self._beginning: asyncio.Task[AsyncIterator[AnswerEvent]] | None = None
        self._events: AsyncIterator[AnswerEvent] | None = None
        self._streamed: RemoteAnswer | None = None
        self._is_closed = False

    @property
    def is_silent(self) -> bool:
        """Whether the peer seems gone, before its connection notices."""
        return self._streamed is not None and self._streamed.is_silent

    def __aiter__(self) -> AsyncIterator[AnswerEvent]:
        return self

    async def __anext__(self) -> AnswerEvent:
        if self._is_closed:
            raise StopAsyncIteration
        if self._events is None:
            self._events = await self._begin()
        return await anext(self._events)

    async def aclose(self) -> None:
        """Stop: the peer is told at once, where its protocol can say it."""
        self._is_closed = True
        beginning, self._beginning = self._beginning, None
        if beginning is not None and not beginning.done():
            beginning.cancel()
            await asyncio.gather(beginning, return_exceptions=True)
        if self._streamed is not None:
            await self._streamed.aclose()

    async def _begin(self) -> AsyncIterator[AnswerEvent]:
        """Connect and send; a task of its own, so that `aclose` can end it.

        Mostly the connection is there, and there is nothing to wait for.
        """
        stream = self._swarm.open_stream(self._key, self._role)
        if stream is not None:
            return self._ask(stream)
        task = asyncio.get_running_loop().create_task(self._send())
        self._beginning = task
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if task.cancelled():
            raise StopAsyncIteration
        return task.result()

    async def _send(self) -> AsyncIterator[AnswerEvent]:
        try:
            session = await self._swarm.session(self._key, role=self._role)
            try:
                stream = self._swarm.stream_of(session)
                if await stream.is_supported():
                    return self._ask(stream)
            finally:
                session.release()
            return _events(await self._unary())
        except NetError as error:
            from .swarm import api_error_of

            failure = api_error_of(error, f"The {self._role.value}")
            failure.request_id = self.request_id
            raise failure from error

    def _ask(self, stream: PromptStreamClient) -> AsyncIterator[AnswerEvent]:
        self._streamed = stream.ask(self._request, self._token, user=self._user)
        return aiter(self._streamed)

    async def _unary(self) -> list[AnswerEvent]:
        if needs_version_2(self._request):
            # A Node.js worker takes prompts and options, and overlooks the rest.
            raise ApiError(
                ErrorCode.MODEL_MISSING,
                f"This {self._role.value} takes plain prompts only; ask another one.",
                status=404,
                request_id=self.request_id,
            )
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        method, body = self._unary_call()
        reply = await self._swarm.request(
            self._key, method, body, UNARY_TIMEOUT_S, role=self._role
        )
        fields = self._checked(reply)
        response = fields.get("response")
        if not isinstance(response, str):
            raise ApiError(
                ErrorCode.ENGINE_FAILED,
                f"The {self._role.value} answered without a response; ask again.",
                status=502,
                request_id=self.request_id,
            )
        is_processor = self._role is Role.PROCESSOR
        usage = Usage(
            model=text_of(fields.get("model")),
            peer=bytes(self._key).hex() if is_processor else "",
            finish_reason="stop",
            duration_s=loop.time() - started_s,
        )
        request_id = text_of(fields.get("requestId")) or self.request_id
        end = Finished(usage, request_id, rate_limit_of(fields))
        return [Fragment(display_text(response)), end]

    def _unary_call(self) -> tuple[str, object]:
        data: dict[str, object] = {"prompt": self._request.prompt}
        if self._request.model:
            data["model"] = self._request.model
        if self._request.options:
            data["options"] = dict(self._request.options)
        if self._role is Role.PROCESSOR:
            return "processRequest", data
        return "processPrompt", {"data": data, "meta": {"key": self._token}}

    def _checked(self, reply: object) -> Mapping[str, object]:
        """The fields of a good answer; a processor's own failure is its engine's."""
        try:
            return reply_untrusted(reply)
        except ApiError as error:
            if self._role is Role.PROCESSOR and error.code is ErrorCode.INTERNAL:
                error.code = ErrorCode.ENGINE_FAILED
            error.request_id = error.request_id or self.request_id
            raise


async def _events(events: list[AnswerEvent]) -> AsyncIterator[AnswerEvent]:
    for event in events:
        yield event
