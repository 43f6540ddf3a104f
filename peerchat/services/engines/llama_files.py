"""The model files of this machine: which are usable, and what they tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from peerchat.api import ModelDetails

from .base import (
    CHAT,
    COMPLETION,
    EMBED,
    JSON,
    PREFIX,
    THINKING,
    TOOLS,
    match_model,
    model_missing,
)
from .gguf_header import GgufError, GgufHeader, read_header_untrusted
from .openai_models import parameters_text


class ModelFiles:
    """GGUF files by the names they are served as.

    Args:
        files: paths by names.
        model: the default one; empty for the first.
        digest_of: SHA-256 of a file in hex, empty where it is not known yet.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        model: str = "",
        digest_of: Callable[[str, Path], str] = lambda _name, _path: "",
    ) -> None:
        self._files = dict(files)
        self._model = model
        self._digest_of = digest_of
        self._headers: dict[str, GgufHeader] = {}

    def path(self, name: str) -> Path:
        """Where a usable one is."""
        return self._files[name]

    def usable(self) -> dict[str, GgufHeader]:
        """Headers of the files that can be read: those that chat first, the default one
        before all."""
        for name, path in self._files.items():
            if name not in self._headers:
                try:
                    self._headers[name] = read_header_untrusted(path)
                except (GgufError, OSError):
                    continue
        default = match_model(self._model, list(self._headers))
        names = sorted(
            self._headers,
            key=lambda name: (self._headers[name].is_embedder, name != default),
        )
        return {name: self._headers[name] for name in names}

    def find(self, wanted: str | None) -> tuple[str, GgufHeader]:
        """A usable one, or MODEL_MISSING."""
        usable = self.usable()
        name = match_model(wanted or "", list(usable))
        if name is None:
            known = ", ".join(list(usable)[:3]) or "none"
            raise model_missing(
                f"There is no model file {wanted!r} here, only {known}; choose one of "
                "those, or leave the model out."
            )
        return name, usable[name]

    def problem(self) -> str:
        """Why nothing can be answered; empty when something can."""
        if not self._files:
            return "no model file: name one with --model-file"
        usable = self.usable()
        if usable and match_model(self._model, list(usable)) is not None:
            return ""
        if usable:
            return f"there is no model file {self._model!r}"
        name, path = next(iter(self._files.items()))
        return f"{name}: {_problem(path)}; name another file with --model-file"

    def details(self, wanted: str) -> ModelDetails:
        """What a file says of itself."""
        name, header = self.find(wanted)
        path = self._files[name]
        try:
            status = path.stat()
        except OSError:
            raise model_missing(f"The model file {name!r} is gone.") from None
        return ModelDetails(
            name=name,
            family=header.architecture,
            families=(header.architecture,) if header.architecture else (),
            file_format="gguf",
            parameters=parameters_text(header.parameters),
            quantization=header.quantization,
            size_bytes=status.st_size,
            context_tokens=header.context_tokens,
            capabilities=capabilities_of(header),
            vector_length=header.vector_length,
            modified_s=status.st_mtime,
            digest=self._digest_of(name, path),
        )


def capabilities_of(header: GgufHeader) -> frozenset[str]:
    """As architecture and chat template have it."""
    if header.is_embedder:
        return frozenset({EMBED})
    template = header.chat_template
    able = {CHAT, COMPLETION, JSON, PREFIX}
    if "tools" in template:
        able.add(TOOLS)
    if "<think>" in template or "enable_thinking" in template:
        able.add(THINKING)
    return frozenset(able)


def _problem(path: Path) -> str:
    try:
        read_header_untrusted(path)
    except GgufError as error:
        return f"no GGUF file: {error}"
    except OSError as error:
        return error.strerror or "cannot be read"
    return "cannot be used"
