"""Pulls a model file from a URL: goes on where it broke off, and checks what came.

The server's ETag stays beside the part, so that a file that changed meanwhile is begun
anew (RFC 9110, sections 13.1.5 and 14.2). Nothing is called whole before its hash is
right, where one was given, and its head is that of a GGUF file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from peerchat.api import ApiError, ErrorCode
from peerchat.services.engines.gguf_header import GgufError, read_header_untrusted

from .store import ModelStore

TRIES_MAX = 5
"""In a row without a byte more; each waits longer than the one before."""

RETRY_S = 0.5
SILENCE_S = 60.0
SPARE_BYTES = 256 * 1024 * 1024
"""Left free on the disk: a full one breaks more than a download."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is."""

    completed: int
    total: int | None
    """Bytes; None when the server does not tell."""
    is_checking: bool = False


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is whole."""

    name: str
    path: Path
    size_bytes: int
    sha256: str


OnProgress = Callable[[PullProgress], None]


async def pull_url(
    store: ModelStore,
    url: str,
    name: str,
    *,
    sha256: str = "",
    on_progress: OnProgress = lambda _progress: None,
) -> Pulled:
    """Fetch a file into the store; cancelling keeps the part for the next time.

    Raises:
        ApiError: what was wrong with URL, server, disk or file, and what to do.
    """
    store.prepare()
    part = store.part_path(name)
    pull = _Pull(url, part, on_progress)
    await pull.run()
    on_progress(PullProgress(part.stat().st_size, pull.total, is_checking=True))
    got = await asyncio.to_thread(_hash_of, part)
    if sha256 and got != sha256.lower():
        pull.discard()
        raise _failed(f"{url} has the hash {got}, not the one that was given.")
    try:
        check_gguf(part, url)
    except ApiError:
        pull.discard()
        raise
    path = store.path(name)
    part.replace(path)
    pull.discard()
    return Pulled(name, path, path.stat().st_size, got)


class _Pull:
    def __init__(self, url: str, part: Path, on_progress: OnProgress) -> None:
        self.total: int | None = None
        self._url = url
        self._part = part
        self._tag = part.with_name(part.name + ".etag")
        self._on_progress = on_progress
        self._tries = 0

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)

    async def run(self) -> None:
        timeout = httpx.Timeout(SILENCE_S)
        hooks = {"response": [_only_web]}
        async with httpx.AsyncClient(
            timeout=timeout, follow_redirects=True, event_hooks=hooks
        ) as http:
            is_done = await self._try(http)
            while not is_done:
                await asyncio.sleep(RETRY_S * 2**self._tries)
                is_done = await self._try(http)

    async def _try(self, http: httpx.AsyncClient) -> bool:
        """Get as much as comes; False when it is worth another try."""
        before = self._size()
        try:
            await self._get(http)
        except httpx.TransportError as error:
            self._tries = 0 if self._size() > before else self._tries + 1
            if self._tries >= TRIES_MAX:
                raise _failed(
                    f"{self._url} cannot be read ({type(error).__name__}); run the "
                    "same command again to go on."
                ) from None
            return False
        except (httpx.InvalidURL, ValueError) as error:
            raise _failed(f"{self._url} is no URL: {error}.") from None
        return True

    async def _get(self, http: httpx.AsyncClient) -> None:
        async with http.stream("GET", self._url, headers=self._headers()) as response:
            if response.status_code == 416 and self._size():
                # The part has all there is, or belongs to another file: the hash and
                # the head tell.
                return
            if response.status_code not in (200, 206):
                raise _failed(
                    f"{self._url} answers with the status {response.status_code}."
                )
            begin = self._begin(response)
            check_space(self._part.parent, (self.total or 0) - begin)
            with self._part.open("r+b" if self._part.exists() else "wb") as file:
                file.truncate(begin)
                file.seek(begin)
                # Pieces as they come: what waits for a larger one is lost in a cut.
                async for data in response.aiter_bytes():
                    file.write(data)
                    self._on_progress(PullProgress(file.tell(), self.total))
                file.flush()
                os.fsync(file.fileno())
        if self.total is not None and self._size() < self.total:
            raise httpx.RemoteProtocolError("the file ended early")

    def _headers(self) -> dict[str, str]:
        # A compressed answer has no byte ranges that mean anything.
        headers = {"Accept-Encoding": "identity"}
        tag = self._tag.read_text() if self._tag.exists() else ""
        if self._size() and tag:
            headers |= {"Range": f"bytes={self._size()}-", "If-Range": tag}
        return headers

    def _begin(self, response: httpx.Response) -> int:
        """Where in the file the answer begins; keeps what is needed to go on later."""
        tag = response.headers.get("ETag", "")
        if tag and not tag.startswith("W/"):
            self._tag.write_text(tag)
        else:
            self._tag.unlink(missing_ok=True)
        if response.status_code == 206:
            found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) > self._size():
                raise _failed(f"{self._url} answers with another range than asked for.")
            self.total = int(found[2])
            return int(found[1])
        length = response.headers.get("Content-Length", "")
        self.total = int(length) if length.isdigit() else None
        return 0

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0


def check_space(folder: Path, missing: int) -> None:
    """Raise `ApiError` when so many bytes more would fill the disk."""
    free = shutil.disk_usage(folder).free
    if missing + SPARE_BYTES > free:
        raise _failed(
            f"The disk has {free >> 20} MiB free, and {missing >> 20} MiB are "
            "missing of the model; make room, and run the same command again."
        )


def check_gguf(part: Path, source: str) -> None:
    """Delete what is no GGUF file and raise `ApiError`."""
    try:
        read_header_untrusted(part)
    except GgufError as error:
        part.unlink()
        raise _failed(f"{source} is no GGUF file: {error}.") from None


async def _only_web(response: httpx.Response) -> None:
    """Refuse to be sent from an encrypted place to an open one."""
    target = response.next_request
    if target is not None and response.url.scheme == "https" != target.url.scheme:
        raise _failed(f"{response.url} leads away from https.")


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _failed(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
