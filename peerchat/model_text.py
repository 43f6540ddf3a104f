"""What is known of a model in a few words, for the command line and the app."""

from __future__ import annotations

from .api import ModelInfo
from .sanitize import display_line


def size_text(size: int) -> str:
    """Bytes as people read them."""
    for limit, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= limit:
            return f"{size / limit:.1f} {unit}"
    return f"{size} B"


def context_text(tokens: int) -> str:
    """Tokens as people name the size of a context: ``8K`` for 8192."""
    return f"{tokens // 1024}K" if tokens >= 1024 else str(tokens)


def kind_words(model: ModelInfo) -> list[str]:
    """Such as ``3.2B``, ``Q4_K_M``, ``1.9 GiB``, as far as they are known."""
    details = model.details
    if details is None:
        return []
    words = [details.parameters, details.quantization]
    if details.size_bytes:
        words.append(size_text(details.size_bytes))
    return [display_line(word, 40) for word in words if word]
