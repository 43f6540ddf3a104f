"""Ollama as an engine, through its chat endpoint.

How Ollama behaves decides the shape of this file (ollama/server/routes.go, sched.go):
no byte comes before the first token, however long loading and waiting take; a stream
may end without ``done``; an error may come inside a stream with status 200; requests
beyond its slots wait in silence without end, which is why the processor admits only
as many as there are slots; and some models are proxied to a cloud, which a node that
promises privacy must not offer. Closing the HTTP request is how Ollama is stopped.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import msgspec
import ollama

from peerchat.api import (
    AnswerEvent,
    ApiError,
    Finished,
    Fragment,
    ModelInfo,
    Progress,
    PromptRequest,
    Usage,
)

from .base import (
    EngineHealth,
    engine_busy,
    engine_down,
    engine_failed,
    engine_timeout,
    invalid_request,
    model_missing,
    one_line,
)
from .options import EngineOptions, engine_options

PORT = 11434

FIRST_BYTE_TIMEOUT_S = 600.0
"""Ollama gives a load 5 minutes without progress; reading the prompt comes on top."""

STALL_TIMEOUT_S = 90.0
"""Between two tokens; slow machines need seconds, a wedged runner needs for ever."""

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 2.0
"""For the small read endpoints: they answer from memory."""

MODELS_FRESH_S = 15.0
"""How long the list of models is believed; a model that is missing is looked for."""

ROLES = frozenset({"system", "user", "assistant"})
CLOUD_SUFFIXES = (":cloud", "-cloud")


class _Details(msgspec.Struct):
    family: str | None = None
    families: list[str] | None = None


class _Model(msgspec.Struct):
    """An entry of ``/api/tags``; the `ollama` package drops the fields that tell a
    remote model from a local one."""

    name: str = ""
    model: str = ""
    remote_host: str | None = None
    remote_model: str | None = None
    capabilities: list[str] | None = None
    details: _Details | None = None


class _Models(msgspec.Struct):
    models: list[_Model] | None = None


class _Client(ollama.AsyncClient):
    """The package's client, and the read endpoints without loss of fields."""

    async def read_models(self, path: str) -> list[_Model]:
        """The list that ``/api/tags`` or ``/api/ps`` gives."""
        http = cast(httpx.AsyncClient, self._client)
        async with asyncio.timeout(READ_TIMEOUT_S):
            response = await http.get(path, timeout=READ_TIMEOUT_S)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=_Models).models or []

    async def aclose(self) -> None:
        """Close the connections; running requests fail."""
        await cast(httpx.AsyncClient, self._client).aclose()


class OllamaEngine:
    """Answers with the models of one Ollama.

    Args:
        host: as ``OLLAMA_HOST``, which is taken when this is empty.
        model: the default model; empty for the first that Ollama lists.
        first_byte_timeout_s: longest silence before an answer begins.
        stall_timeout_s: longest silence within an answer.
    """

    def __init__(
        self,
        *,
        host: str = "",
        model: str = "",
        first_byte_timeout_s: float = FIRST_BYTE_TIMEOUT_S,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self.url = client_url(host or os.environ.get("OLLAMA_HOST", ""))
        self._model = model
        self._first_byte_timeout_s = first_byte_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._client = _Client(
            self.url,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            # A proxy of the environment must not see prompts for this machine.
            trust_env=not _is_loopback(self.url),
            follow_redirects=False,
        )
        self._served: list[str] = []
        self._served_at_s = -MODELS_FRESH_S

    @property
    def name(self) -> str:
        """The engine's short name."""
        return "ollama"

    async def models(self) -> Sequence[ModelInfo]:
        """The local models that can chat, the default one first."""
        names = await self._list_models()
        if self._model:
            default = _match(self._model, names)
            names = sorted(names, key=lambda name: name != default)
        return [ModelInfo(name=name, engine=self.name) for name in names]

    async def health(self) -> EngineHealth:
        """Up when Ollama answers and has a model that is served."""
        try:
            names = await self._list_models()
        except ApiError as error:
            detail = f"Ollama does not answer at {self.url}: start it (ollama serve)"
            if not _is_unreachable(error):
                detail = f"Ollama at {self.url}: {error.message}"
            return EngineHealth(is_up=False, detail=detail)
        if not names:
            detail = f"Ollama at {self.url} has no model: ollama pull llama3.2"
            return EngineHealth(is_up=False, detail=detail)
        if self._model and _match(self._model, names) is None:
            detail = f"Ollama at {self.url} has no model {self._model!r}"
            return EngineHealth(is_up=False, detail=f"{detail}: ollama pull it")
        count = "1 model" if len(names) == 1 else f"{len(names)} models"
        return EngineHealth(is_up=True, detail=f"Ollama at {self.url}, {count}")

    async def close(self) -> None:
        """Close the HTTP connections."""
        await self._client.aclose()

    async def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer; closing this closes the HTTP request, which frees Ollama's slot."""
        began_s = time.monotonic()
        options = engine_options(request.options)
        messages = _messages(request)
        model = await self._resolve(request.model)
        if not await self._is_loaded(model):
            yield Progress("loading", model=model)
        first_s: float | None = None
        async with aclosing(await self._chat(model, messages, options)) as parts:
            while True:
                part = await self._next(parts, model, has_begun=first_s is not None)
                if first_s is None:
                    first_s = time.monotonic() - began_s
                if part.message.thinking:
                    yield Fragment(part.message.thinking, is_thinking=True)
                # The last part is usually empty, and not always.
                if part.message.content:
                    yield Fragment(part.message.content)
                if part.done:
                    break
        duration_s = time.monotonic() - began_s
        yield Finished(_usage(part, model, duration_s, first_s), request.request_id)

    async def _chat(
        self,
        model: str,
        messages: list[Mapping[str, str]],
        options: EngineOptions,
    ) -> AsyncGenerator[ollama.ChatResponse, None]:
        parts: AsyncIterator[ollama.ChatResponse] = await self._client.chat(
            model=model,
            messages=messages,
            stream=True,
            think=options.think,
            options=_ollama_options(options),
        )
        # The package promises an iterator and gives a generator, which can be closed.
        return cast("AsyncGenerator[ollama.ChatResponse, None]", parts)

    async def _next(
        self,
        parts: AsyncGenerator[ollama.ChatResponse, None],
        model: str,
        *,
        has_begun: bool,
    ) -> ollama.ChatResponse:
        limit_s = self._stall_timeout_s if has_begun else self._first_byte_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await anext(parts)
        except StopAsyncIteration:
            raise engine_failed(
                "Ollama ended the answer before it was complete; ask again."
            ) from None
        except TimeoutError:
            raise engine_timeout(
                f"Ollama was silent for {limit_s:.0f} s and was stopped; ask again, "
                "or look at its log."
            ) from None
        except Exception as error:
            raise _failure(error, model) from None

    async def _resolve(self, asked: str | None) -> str:
        """The name of a served model, or MODEL_MISSING."""
        wanted = asked or self._model
        if wanted.lower().endswith(CLOUD_SUFFIXES):
            raise model_missing(
                f"{wanted!r} is a cloud model: the prompt would leave the swarm. "
                "Choose a local one."
            )
        if time.monotonic() - self._served_at_s < MODELS_FRESH_S:
            found = _match(wanted, self._served)
            if found is not None:
                return found
        found = _match(wanted, await self._list_models())
        if found is not None:
            return found
        if not wanted:
            raise model_missing(
                "Ollama has no model yet; run 'ollama pull llama3.2' on the processor."
            )
        raise model_missing(
            f"Ollama has no model {wanted!r}; choose another, or run "
            f"'ollama pull {wanted}' on the processor."
        )

    async def _list_models(self) -> list[str]:
        """Names of the local chat models, in Ollama's order."""
        try:
            models = await self._client.read_models("/api/tags")
        except Exception as error:
            raise _failure(error, "") from None
        self._served = [m.model or m.name for m in models if _is_served(m)]
        self._served_at_s = time.monotonic()
        return self._served

    async def _is_loaded(self, model: str) -> bool:
        """Whether the answer can begin soon; True when it cannot be known."""
        try:
            loaded = await self._client.read_models("/api/ps")
        except Exception:
            # Only a hint for the one who waits; the prompt itself reports failures.
            return True
        return any(model in (entry.model, entry.name) for entry in loaded)


def client_url(host: str) -> str:
    """Where a client connects to for an ``OLLAMA_HOST``, which also is what a server
    binds to: the wildcard address means this machine."""
    text = host.strip()
    if "://" not in text:
        text = f"http://{text}"
        default_port = PORT
    else:
        default_port = 443 if text.startswith("https://") else 80
    parts = urlsplit(text)
    try:
        port = parts.port or default_port
    except ValueError:
        port = default_port
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):
        name = "127.0.0.1"
    if ":" in name:
        name = f"[{name}]"
    return f"{parts.scheme}://{name}:{port}{parts.path.rstrip('/')}"


def _is_loopback(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _is_served(model: _Model) -> bool:
    """Local, and able to chat; servers that list no capabilities are judged by the
    family, embedding models being of the BERT kind."""
    name = model.model or model.name
    if not name or name.lower().endswith(CLOUD_SUFFIXES):
        return False
    if model.remote_host or model.remote_model:
        return False
    if model.capabilities is not None:
        return "completion" in model.capabilities
    details = model.details or _Details()
    families = [*(details.families or []), details.family or ""]
    return not any("bert" in family for family in families)


def _match(wanted: str, names: Sequence[str]) -> str | None:
    """The served name for a wanted one; ``""`` wants the first, no tag ``latest``."""
    if not wanted:
        return names[0] if names else None
    for name in (wanted, f"{wanted}:latest"):
        if name in names:
            return name
    return None


def _messages(request: PromptRequest) -> list[Mapping[str, str]]:
    for turn in request.history:
        if turn.role not in ROLES:
            raise invalid_request(
                f"Unknown role {turn.role[:32]!r} in the history; use system, user "
                "or assistant."
            )
    turns = [{"role": turn.role, "content": turn.content} for turn in request.history]
    return [*turns, {"role": "user", "content": request.prompt}]


def _ollama_options(options: EngineOptions) -> dict[str, Any]:
    asked = {
        "num_predict": options.num_predict,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "seed": options.seed,
        "stop": options.stop,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _usage(
    last: ollama.ChatResponse, model: str, duration_s: float, first_s: float | None
) -> Usage:
    count, eval_ns = last.eval_count, last.eval_duration
    return Usage(
        model=model,
        peer="",
        finish_reason="length" if last.done_reason == "length" else "stop",
        duration_s=duration_s,
        first_fragment_s=first_s,
        prompt_tokens=last.prompt_eval_count,
        answer_tokens=count,
        tokens_per_s=count / eval_ns * 1e9 if count and eval_ns else None,
    )


def _is_unreachable(error: ApiError) -> bool:
    return error.message == _UNREACHABLE


_UNREACHABLE = (
    "Ollama does not answer on the processor; start it there with 'ollama serve', "
    "or start the processor with --engine guide."
)


def _failure(error: Exception, model: str) -> ApiError:
    """What an exception of the client means for the one who asked."""
    match error:
        case ollama.ResponseError():
            return _refusal(error.status_code, str(error.error), model)
        case httpx.HTTPStatusError():
            text = error.response.text
            return _refusal(error.response.status_code, text, model)
        case httpx.ConnectError() | httpx.ConnectTimeout() | ConnectionError():
            return engine_down(_UNREACHABLE)
        case httpx.TimeoutException() | TimeoutError():
            return engine_down(_UNREACHABLE)
        case httpx.HTTPError():
            return engine_failed(
                "Ollama closed the connection during the answer; ask again."
            )
        case _:
            return engine_failed(
                f"Ollama sent something unexpected ({type(error).__name__}); "
                "check that OLLAMA_HOST names an Ollama."
            )


def _refusal(status: int, text: str, model: str) -> ApiError:
    """An error that Ollama sent; status -1 stands for one inside a stream."""
    said = one_line(text)
    match status:
        case 404 if "not found" in said and "page not found" not in said:
            return model_missing(
                f"Ollama has no model {model!r}; choose another, or run "
                f"'ollama pull {model}' on the processor."
            )
        case 400:
            return invalid_request(f"Ollama refused the prompt: {said}")
        case 503:
            return engine_busy("Ollama has too many requests waiting; try again soon.")
        case 403:
            return engine_failed(
                f"Ollama refused this client ({said or 'forbidden'}); check "
                "OLLAMA_HOST and OLLAMA_ORIGINS on the processor."
            )
        case _:
            return engine_failed(f"Ollama failed: {said or f'status {status}'}")
