"""Pulling a model file: resume, hash, and what is wrong with servers and files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from peerchat.api import ApiError
from peerchat.cli.model_text import bar_text
from peerchat.services.models import pull as pull_module
from peerchat.services.models.pull import PullProgress, pull_url
from peerchat.services.models.store import ModelStore, name_of_file
from tests.tiny_gguf import tiny_model

MODEL = tiny_model().read_bytes()
SHA256 = hashlib.sha256(MODEL).hexdigest()


class FileServer:
    """Serves one file, and breaks off where it is told to."""

    def __init__(self) -> None:
        self.data = MODEL
        self.tag = '"v1"'
        self.cut_after: list[int] = []
        self.has_ranges = True
        self.status = 200
        self.ranges: list[str] = []
        self.url = ""

    async def get(self, request: web.Request) -> web.StreamResponse:
        if self.status != 200:
            return web.Response(status=self.status)
        asked = request.headers.get("Range", "")
        self.ranges.append(asked)
        begin = 0
        headers = {"ETag": self.tag} if self.tag else {}
        is_same = request.headers.get("If-Range") == self.tag
        if asked and self.has_ranges and is_same:
            begin = int(asked.removeprefix("bytes=").rstrip("-"))
            if begin >= len(self.data):
                return web.Response(status=416)
            end, size = len(self.data) - 1, len(self.data)
            headers["Content-Range"] = f"bytes {begin}-{end}/{size}"
        response = web.StreamResponse(status=206 if begin else 200, headers=headers)
        response.content_length = len(self.data) - begin
        await response.prepare(request)
        if self.cut_after:
            await response.write(self.data[begin : begin + self.cut_after.pop(0)])
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write(self.data[begin:])
        return response


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    files = FileServer()
    app = web.Application()
    app.add_routes([web.get("/tiny.gguf", files.get)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    files.url = f"http://127.0.0.1:{runner.addresses[0][1]}/tiny.gguf"
    yield files
    await runner.cleanup()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setattr(pull_module, "RETRY_S", 0.01)
    return ModelStore(tmp_path / "models")


async def test_a_file_comes_whole(server: FileServer, store: ModelStore) -> None:
    told: list[PullProgress] = []
    got = await pull_url(
        store, server.url, "tiny", sha256=SHA256.upper(), on_progress=told.append
    )
    assert got.path.read_bytes() == MODEL
    assert got.sha256 == SHA256
    assert store.files() == {"tiny": got.path}
    assert [one.completed for one in told][-1] == len(MODEL)
    assert told[0].total == len(MODEL)
    assert told[-1].is_checking
    assert [path.name for path in store.folder.iterdir()] == ["tiny.gguf"]


async def test_it_goes_on_where_it_broke_off(
    server: FileServer, store: ModelStore
) -> None:
    server.cut_after = [100_000, 0, 200_000]
    got = await pull_url(store, server.url, "tiny", sha256=SHA256)
    assert got.path.read_bytes() == MODEL
    assert server.ranges[0] == ""
    assert server.ranges[-1].startswith("bytes=")
    assert server.ranges[-1] != "bytes=0-"


async def test_the_next_command_goes_on_too(
    server: FileServer, store: ModelStore
) -> None:
    server.cut_after = [100_000] + [0] * 20
    with pytest.raises(ApiError, match="run the same command again"):
        await pull_url(store, server.url, "tiny")
    (part,) = store.list()
    assert not part.is_whole
    assert store.files() == {}
    server.cut_after = []
    server.ranges.clear()
    await pull_url(store, server.url, "tiny", sha256=SHA256)
    assert server.ranges == [f"bytes={part.size_bytes}-"]


async def test_a_file_that_changed_is_begun_anew(
    server: FileServer, store: ModelStore
) -> None:
    store.prepare()
    store.part_path("tiny").write_bytes(b"of another version")
    Path(f"{store.part_path('tiny')}.etag").write_text('"v0"')
    got = await pull_url(store, server.url, "tiny", sha256=SHA256)
    assert got.path.read_bytes() == MODEL


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
async def test_without_a_firm_tag_it_begins_anew(
    server: FileServer, store: ModelStore, tag: str
) -> None:
    server.tag = tag
    server.cut_after = [100_000]
    await pull_url(store, server.url, "tiny", sha256=SHA256)
    assert server.ranges == ["", ""]


async def test_a_wrong_hash_leaves_nothing(
    server: FileServer, store: ModelStore
) -> None:
    with pytest.raises(ApiError, match="not the one that was given"):
        await pull_url(store, server.url, "tiny", sha256="0" * 64)
    assert store.list() == []


async def test_what_is_no_model_leaves_nothing(
    server: FileServer, store: ModelStore
) -> None:
    server.data = b"<html>not found</html>"
    with pytest.raises(ApiError, match="no GGUF file"):
        await pull_url(store, server.url, "tiny")
    assert list(store.folder.iterdir()) == []


async def test_a_refusal_is_told(server: FileServer, store: ModelStore) -> None:
    server.status = 404
    with pytest.raises(ApiError, match="status 404"):
        await pull_url(store, server.url, "tiny")


async def test_a_full_disk_is_told_before(
    server: FileServer, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "SPARE_BYTES", 2**60)
    with pytest.raises(ApiError, match="make room"):
        await pull_url(store, server.url, "tiny")


async def test_nobody_there_is_told(store: ModelStore) -> None:
    with pytest.raises(ApiError, match="cannot be read"):
        await pull_url(store, "http://127.0.0.1:9/tiny.gguf", "tiny")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 200, "a b"])
def test_names_stay_in_the_folder(store: ModelStore, name: str) -> None:
    with pytest.raises(ApiError, match="cannot name"):
        store.path(name)


def test_names_come_from_files() -> None:
    assert name_of_file("/a/b/Llama-3.2-1B.Q4_K_M.gguf") == "Llama-3.2-1B.Q4_K_M"
    assert name_of_file("/a/b/") == ""


async def test_removing(server: FileServer, store: ModelStore) -> None:
    await pull_url(store, server.url, "tiny")
    store.remove("tiny")
    assert store.list() == []
    with pytest.raises(ApiError, match="no pulled model"):
        store.remove("tiny")


def test_the_bar_says_how_far_it_is() -> None:
    text = bar_text("tiny", PullProgress(512 * 1024, 1024 * 1024))
    assert "50%" in text
    assert "512.0 KiB of 1.0 MiB" in text
    assert "checking" in bar_text("tiny", PullProgress(1, 1, is_checking=True))
    assert bar_text("tiny", PullProgress(10, None)) == "tiny  10 B"
