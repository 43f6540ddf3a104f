"""The guide: no language model, but answers about peerchat from its own help pages.

A machine without an engine still shows the whole path with it. The answer is the best
matching section of ``help/*.md``, found by BM25 over words, so that the same question
always gets the same answer. It says at once that it is not a model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

from peerchat.api import (
    AnswerEvent,
    Embeddings,
    EmbedRequest,
    Finished,
    Fragment,
    LoadedModel,
    ModelDetails,
    ModelInfo,
    PromptRequest,
    Usage,
)

from .base import (
    CHAT,
    PREFIX,
    EngineHealth,
    invalid_request,
    model_missing,
)
from .help_index import HelpIndex, Section, load_help, words_of
from .turns import check_needs

MODEL = "guide"
INTRODUCTION = (
    "*I am the guide, not a language model: I look things up in peerchat's help pages.*"
)
_GREETINGS = """
hello hi hey hallo hola moin servus good morning evening afternoon day greetings there
thanks thank you bye goodbye guide
"""
GREETINGS = frozenset(_GREETINGS.split())
GREETING_WORDS_MAX = 4
RELATED_MAX = 3
CAPABILITIES = frozenset({CHAT, PREFIX})


class GuideEngine:
    """Answers from the help pages.

    Args:
        pace_s: pause between words, so that an answer is seen to stream.
    """

    def __init__(self, *, pace_s: float = 0.004) -> None:
        self._pace_s = pace_s
        self._index: HelpIndex | None = None

    @property
    def name(self) -> str:
        """The engine's short name."""
        return MODEL

    async def models(self) -> Sequence[ModelInfo]:
        """The one pseudo-model, so that clients can name it."""
        return (ModelInfo(name=MODEL, engine=MODEL),)

    async def health(self) -> EngineHealth:
        """Always up: the pages are part of the package."""
        return EngineHealth(is_up=True, detail="built-in guide, no language model")

    async def close(self) -> None:
        """Nothing is held."""

    async def embedders(self) -> Sequence[str]:
        """None."""
        return ()

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Refused."""
        _check_model(request.model)
        raise invalid_request("The guide cannot embed texts; choose another model.")

    async def capabilities(self, model: str) -> frozenset[str]:
        """It chats, and goes on with an answer of its own."""
        _check_model(model)
        return CAPABILITIES

    async def show(self, model: str) -> ModelDetails:
        """There is nothing to a guide."""
        _check_model(model)
        return ModelDetails(MODEL, family=MODEL, capabilities=CAPABILITIES)

    async def loaded(self) -> Mapping[str, LoadedModel] | None:
        """There is no model."""
        return {}

    async def stream(self, request: PromptRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Answer word by word; the same question gets the same answer, so that a begun
        one is gone on with by leaving out its beginning."""
        _check_model(request.model)
        check_needs(request, CAPABILITIES, "The guide")
        whole = self.answer(request.prompt)
        if not whole.startswith(request.prefix):
            raise invalid_request("The guide can only go on with an answer of its own.")
        began_s = time.monotonic()
        first_s: float | None = None
        count = 0
        for piece in _pieces(whole[len(request.prefix) :]):
            if first_s is None:
                first_s = time.monotonic() - began_s
            count += 1
            yield Fragment(piece)
            await asyncio.sleep(self._pace_s)
        duration_s = time.monotonic() - began_s
        yield Finished(
            usage=Usage(
                model=MODEL,
                peer="",
                finish_reason="stop",
                duration_s=duration_s,
                first_fragment_s=first_s,
                prompt_tokens=len(request.prompt.split()),
                answer_tokens=count,
                tokens_per_s=count / duration_s if duration_s > 0 else None,
            ),
            request_id=request.request_id,
        )

    def answer(self, question: str) -> str:
        """The whole answer, in Markdown."""
        if self._index is None:
            self._index = HelpIndex(load_help())
        words = words_of(question)
        if not words or _is_greeting(question):
            return f"{INTRODUCTION}\n\n{_welcome(self._index)}"
        found = self._index.search(question)
        if not found:
            return f"{INTRODUCTION}\n\n{_unknown(self._index)}"
        return f"{INTRODUCTION}\n\n{_from_sections(found)}"


def _check_model(model: str | None) -> None:
    if model not in (None, "", MODEL):
        raise model_missing(
            f"There is no model {model!r} here, only the built-in guide: "
            "leave the model out, or start Ollama on the processor."
        )


def _is_greeting(question: str) -> bool:
    words = [word.strip(".,!?;:").lower() for word in question.split()]
    return len(words) <= GREETING_WORDS_MAX and all(w in GREETINGS for w in words if w)


def _from_sections(found: Sequence[Section]) -> str:
    best, *others = found
    text = f"**{best.title}**\n\n{best.body}"
    if others:
        titles = ", ".join(f"*{section.title}*" for section in others[:RELATED_MAX])
        text += f"\n\nSee also: {titles}."
    return text


def _welcome(index: HelpIndex) -> str:
    return (
        "Hello! Ask me how to use peerchat, for example *How do I use Ollama?*, "
        "*How do two machines meet?* or *Which keys does the app have?*\n\n"
        + _topics(index)
    )


def _unknown(index: HelpIndex) -> str:
    return (
        "I found nothing about that in the help pages. For questions about anything "
        "else a language model is needed: install Ollama (https://ollama.com), pull a "
        "model with `ollama pull llama3.2`, and start peerchat again.\n\n"
        + _topics(index)
    )


def _topics(index: HelpIndex) -> str:
    return "I can help with: " + ", ".join(index.pages) + "."


def _pieces(text: str) -> Iterator[str]:
    """Words with the white space that follows them; joined they are the text."""
    start = 0
    was_space = False
    for position, character in enumerate(text):
        is_space = character.isspace()
        if was_space and not is_space:
            yield text[start:position]
            start = position
        was_space = is_space
    if start < len(text):
        yield text[start:]
