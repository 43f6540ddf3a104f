"""What `peerchat models pull|list|rm` do."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from peerchat.api import ApiError, ErrorCode
from peerchat.model_text import size_text
from peerchat.services.engines.gguf_header import (
    GgufError,
    GgufHeader,
    read_header_untrusted,
)
from peerchat.services.engines.openai_models import parameters_text
from peerchat.services.models.pull import pull_url
from peerchat.services.models.store import ModelStore, StoredModel, name_of_file
from peerchat.settings import Settings

from .model_text import Bar, show_pulled
from .options import Invocation

_SHA256 = re.compile("[0-9a-fA-F]{64}")


async def run_pull(
    settings: Settings, call: Invocation, source: str, name: str, sha256: str
) -> None:
    """Get a file by its URL, or from peers."""
    if sha256 and not _SHA256.fullmatch(sha256):
        raise _wrong("--sha256 wants 64 hexadecimal digits.")
    if is_of_peers(source):
        from .model_peers import run_pull_from_peer

        await run_pull_from_peer(settings, call, source, name, sha256)
        return
    parts = urlsplit(source)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong(f"{source!r} is no URL: give one that begins with https://.")
    name = name or name_of_file(parts.path)
    if not name:
        raise _wrong("The URL does not name a file: name the model with --name.")
    bar = Bar(call, name)
    pulled = await pull_url(
        ModelStore(settings.home.models_dir),
        source,
        name,
        sha256=sha256,
        on_progress=bar.show,
    )
    bar.end()
    show_pulled(call, pulled)


async def run_list(settings: Settings, call: Invocation) -> None:
    """A line for each file."""
    found = ModelStore(settings.home.models_dir).list()
    if not found:
        call.out.note("no model file: peerchat models pull URL|NAME@PEER")
    for one in found:
        state = "" if one.is_whole else "  (not whole: pull again)"
        header = _header(one)
        words = [parameters_text(header.parameters), header.quantization]
        kind = "".join(f"  {word}" for word in words if word)
        call.out.line(
            f"{one.name:<40} {size_text(one.size_bytes)}{kind}{state}",
            {
                "name": one.name,
                "path": str(one.path),
                "size": one.size_bytes,
                "is_whole": one.is_whole,
                "parameters": words[0],
                "quantization": words[1],
            },
        )


def _header(model: StoredModel) -> GgufHeader:
    """What a whole file says of itself."""
    try:
        return read_header_untrusted(model.path) if model.is_whole else GgufHeader()
    except (GgufError, OSError):
        return GgufHeader()


async def run_remove(settings: Settings, call: Invocation, name: str) -> None:
    """Delete a file."""
    ModelStore(settings.home.models_dir).remove(name)
    call.out.line(f"removed {name}", {"name": name, "removed": True})


def is_of_peers(source: str) -> bool:
    """Whether it is ``NAME@PEER`` and no URL."""
    return "@" in source and "://" not in source


def _wrong(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
