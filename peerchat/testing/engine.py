"""An engine that does exactly what a test wrote down.

A script is a list of steps: a string is a fragment, an event is passed on, an
exception is raised, an `asyncio.Event` is waited for, and `STALL` waits for ever. After
the last step the answer ends well, unless the script ends in an exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Embeddings,
    EmbedRequest,
    Finished,
    Fragment,
    LoadedModel,
    ModelDetails,
    ModelInfo,
    Progress,
    PromptRequest,
    ToolCalls,
    Usage,
)
from peerchat.services.engines.base import (
    CHAT,
    COMPLETION,
    EMBED,
    IMAGES,
    JSON,
    PREFIX,
    TOOLS,
    EngineHealth,
    engine_down,
    engine_failed,
    model_missing,
)
from peerchat.services.engines.vectors import packed

CAPABILITIES = frozenset({CHAT, COMPLETION, EMBED, IMAGES, JSON, PREFIX, TOOLS})


class Stall:
    """The step that never ends."""


STALL: Final = Stall()

Step = (
    str | Fragment | Progress | ToolCalls | Finished | Exception | asyncio.Event | Stall
)
Script = Callable[[PromptRequest], Sequence[Step]]


def echo(request: PromptRequest) -> Sequence[Step]:
    """Give the words of the prompt back."""
    return [f"{word} " for word in request.prompt.split()]


class ScriptedEngine:
    """Plays a script for each request and counts what happens.

    Args:
        script: the steps, the same for each request, or a function of the request.
        models: names of what it serves; the first is the default.
    """

    def __init__(
        self,
        script: Sequence[Step] | Script = echo,
        *,
        models: Sequence[str] = ("scripted",),
    ) -> None:
        self._script: Script = script if callable(script) else lambda _request: script
        self.model_names = tuple(models)
        self.is_up = True
        self.is_closed = False
        self.memory: Mapping[str, LoadedModel] | None = None
        """What it tells of loaded models."""
        self.requests: list[PromptRequest] = []
        self.running = 0
        self.running_max = 0
        self.finished = 0
        self.stopped = 0
        """Answers that were closed, or failed, before their end."""
        self._changed = asyncio.Condition()

    @property
    def name(self) -> str:
        """The engine's short name."""
        return "scripted"

    async def models(self) -> Sequence[ModelInfo]:
        """As named when made."""
        if not self.is_up:
            raise engine_down("The scripted engine is down.")
        return [ModelInfo(name=name, engine=self.name) for name in self.model_names]

    async def health(self) -> EngineHealth:
        """As `is_up` says."""
        return EngineHealth(self.is_up, "scripted" if self.is_up else "scripted: down")

    async def close(self) -> None:
        """Remembered in `is_closed`."""
        self.is_closed = True

    async def embedders(self) -> Sequence[str]:
        """All of them."""
        return self.model_names

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Lengths of texts, as vectors of one number."""
        model = self._model(request.model)
        vectors = tuple(packed([float(len(text))]) for text in request.inputs)
        return Embeddings(model, vectors, sum(map(len, request.inputs)))

    async def capabilities(self, model: str) -> frozenset[str]:
        """A script can be anything, but for thinking."""
        self._model(model)
        return CAPABILITIES

    async def show(self, model: str) -> ModelDetails:
        """Little."""
        name = self._model(model)
        return ModelDetails(name, "scripted", "0B", capabilities=CAPABILITIES)

    async def loaded(self) -> Mapping[str, LoadedModel] | None:
        """As `memory` says."""
        return self.memory

    async def wait_for(self, condition: Callable[[ScriptedEngine], bool]) -> None:
        """Return once the counters are as the condition wants them."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self))

    async def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Play the script."""
        model = self._model(request.model)
        self.requests.append(request)
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        await self._notify()
        has_finished = False
        fragments = 0
        try:
            for step in self._script(request):
                match step:
                    case str():
                        fragments += 1
                        yield Fragment(step)
                    case Fragment() | Progress() | ToolCalls():
                        yield step
                    case Finished():
                        has_finished = True
                        yield step
                        return
                    case asyncio.Event():
                        await step.wait()
                    case Stall():
                        await asyncio.get_running_loop().create_future()
                    case _:
                        raise step
            has_finished = True
            yield Finished(_usage(model, fragments), request.request_id)
        finally:
            self.running -= 1
            self.finished += has_finished
            self.stopped += not has_finished
            await self._notify()

    def _model(self, wanted: str | None) -> str:
        if not self.is_up:
            raise engine_down("The scripted engine is down.")
        model = wanted or self.model_names[0]
        if model not in self.model_names:
            raise model_missing(f"The scripted engine has no model {model!r}.")
        return model

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def dies(message: str = "The scripted engine died.") -> ApiError:
    """The step of an engine that breaks in the middle of an answer."""
    return engine_failed(message)


def _usage(model: str, fragments: int) -> Usage:
    return Usage(
        model=model,
        peer="",
        finish_reason="stop",
        duration_s=1.0,
        first_fragment_s=0.5,
        prompt_tokens=1,
        answer_tokens=fragments,
        tokens_per_s=float(fragments),
    )
