"""What engines know of models, on its way through the swarm to clients."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from peerchat.api import LoadedModel, ModelDetails, ModelInfo, Usage
from peerchat.cli.listing import model_fields, model_line
from peerchat.model_replies import models_of
from peerchat.model_text import kind_words
from peerchat.net.errors import DecodeError
from peerchat.net.identity import PublicKey
from peerchat.services.details_wire import (
    DETAILS_BYTES_MAX,
    decode_details_untrusted,
    encode_details,
)
from peerchat.services.engines.base import (
    CHAT,
    COMPLETION,
    EMBED,
    IMAGES,
    JSON,
    PREFIX,
    TOOLS,
    engine_down,
)
from peerchat.services.engines.llama_files import ModelFiles
from peerchat.services.engines.ollama import OllamaEngine
from peerchat.services.model_catalog import ModelCatalog
from peerchat.services.model_messages import models_reply
from peerchat.services.models.shelf import Shelf, known_sha256
from peerchat.services.models.store import ModelStore
from peerchat.services.processor_figures import ProcessorFigures
from peerchat.services.processor_state import Processor
from peerchat.services.served_models import LISTED_MAX, served_models
from peerchat.services.status_wire import (
    Loaded,
    ModelStatus,
    Status,
    decode_status_untrusted,
)
from peerchat.testing.engine import ScriptedEngine
from peerchat.testing.ollama_stub import OllamaStub
from tests.tiny_gguf import write_model

from .routing_world import RoutingWorld

DIGEST = "a1" * 32
WHOLE = ModelDetails(
    "llama3.2:3b",
    family="llama",
    parameters="3.2B",
    quantization="Q4_K_M",
    size_bytes=2_019_393_189,
    context_tokens=131_072,
    capabilities=frozenset({CHAT, COMPLETION, TOOLS}),
    modified_s=1_700_000_000.5,
    digest=DIGEST,
    families=("llama", "clip"),
    file_format="gguf",
    vector_length=3072,
)


def processor(number: int, *told: ModelDetails, **status: object) -> Processor:
    one = Processor(PublicKey(bytes([number]) * 32))
    models = [ModelStatus(details.name, **status) for details in told]
    one.tell(Status(models, engine="ollama"), 0.0)
    one.details = {details.name: details for details in told}
    return one


# On the wire


def test_details_come_through_whole() -> None:
    little = ModelDetails("guide")
    payload = encode_details([WHOLE, little])
    assert decode_details_untrusted(payload) == {"llama3.2:3b": WHOLE, "guide": little}
    assert len(encode_details([WHOLE])) < 200


def test_too_many_or_too_long_are_cut_by_the_sender() -> None:
    many = [replace(WHOLE, name=f"{number:04}" + "é" * 300) for number in range(500)]
    payload = encode_details(many)
    assert len(payload) <= DETAILS_BYTES_MAX
    found = decode_details_untrusted(payload)
    assert 50 < len(found) <= 200
    odd = replace(WHOLE, digest="no hash", size_bytes=-1, family="x" * 1000)
    told = decode_details_untrusted(encode_details([odd]))[WHOLE.name]
    assert (told.digest, told.size_bytes, len(told.family)) == ("", None, 64)


def test_what_a_hostile_processor_tells_is_harmless() -> None:
    told = [
        ["m\x1b[2J", "ll\u202eama", [], "3B\n", "", "", 5, b"short", 0, 0, ["magic"]]
    ]
    payload = msgspec.msgpack.encode([[*told[0], float("nan"), "later"]])
    (model,) = decode_details_untrusted(payload).values()
    assert model == ModelDetails("m", "llama", "3B", size_bytes=5)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([["m"]] * 201),
        msgspec.msgpack.encode([["m", "f" * 65]]),
        msgspec.msgpack.encode([["m", "", ["x"] * 9]]),
        msgspec.msgpack.encode([["m", "", [], "", "", "", -1]]),
        bytes(DETAILS_BYTES_MAX + 1),
    ],
)
def test_other_details_are_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_details_untrusted(payload)


def test_a_status_of_the_first_version_is_read() -> None:
    status = decode_status_untrusted(msgspec.msgpack.encode([[["m", 5.0, 0.0]], 2]))
    assert status.models == [ModelStatus("m", 5.0, 0.0)]
    loaded = [float("inf"), 7, None, 4096, "later"]
    payload = msgspec.msgpack.encode([[["m", None, None, loaded]]])
    (model,) = decode_status_untrusted(payload).models
    assert model.loaded == Loaded(None, 7, None, 4096)


# In memory


def test_what_the_engine_has_in_memory_is_warm() -> None:
    figures = ProcessorFigures()
    figures.learn(Usage("a", "", "stop", 1.0, load_s=3.0), 100.0)
    figures.learn(Usage("b", "", "stop", 1.0, load_s=3.0), 109.0)
    memory = {"c": LoadedModel(60.0, 5, 4, 4096)}
    told = figures.of(["a", "b", "c", "d"], 110.0, memory, 2.0)
    assert [one.load_s for one in told] == [3.0, 0.0, 0.0, None]
    assert [one.loaded for one in told] == [None, None, Loaded(58.0, 5, 4, 4096), None]
    # Without word from the engine what was used lately counts.
    assert [one.load_s for one in figures.of(["a", "d"], 110.0)] == [0.0, None]


# Of several processors


def test_the_kind_that_most_have_is_shown() -> None:
    other = replace(WHOLE, digest="b2" * 32, quantization="Q8_0", context_tokens=8192)
    found = served_models(
        [processor(1, other), processor(2, WHOLE), processor(3, WHOLE)]
    )
    (model,) = found
    assert model.details is not None
    assert (model.details.quantization, model.details.digest) == ("Q4_K_M", DIGEST)
    assert model.context_tokens == 8192, "a request may go to any"
    assert model.engine == "ollama"
    assert len(model.peers) == 3


def test_only_what_it_can_do_everywhere_counts() -> None:
    sees = replace(WHOLE, capabilities=frozenset({CHAT, IMAGES, JSON}))
    silent = replace(WHOLE, capabilities=frozenset())
    (model,) = served_models(
        [processor(n, one) for n, one in enumerate((WHOLE, sees, silent))]
    )
    assert model.details is not None
    assert model.details.capabilities == {CHAT}


def test_old_processors_tell_names_only() -> None:
    old = processor(1, WHOLE)
    old.details = {}
    silent = processor(3)
    silent.models = None
    (model,) = served_models([old, silent])
    assert model == ModelInfo(WHOLE.name, "ollama", (old.key.hex(),))
    (model,) = served_models([old, processor(2, WHOLE)])
    assert model.details == WHOLE


def test_models_for_vectors_are_told_apart() -> None:
    vectors = ModelDetails("v", capabilities=frozenset({EMBED}))
    assert [m.is_embedder for m in served_models([processor(1, vectors)])] == [True]


def test_loaded_is_what_is_kept_longest() -> None:
    idle = processor(1, WHOLE)
    short = processor(2, WHOLE, loaded=Loaded(10.0, 1, 1, 4096))
    long = processor(3, WHOLE, loaded=Loaded(None, 2, 2, 8192))
    warm = processor(4, WHOLE, load_s=0.0)

    def loaded(*ones: Processor) -> LoadedModel | None:
        return served_models(ones)[0].loaded

    assert loaded(idle) is None
    assert loaded(idle, warm) == LoadedModel()
    assert loaded(warm, short, long) == LoadedModel(None, 2, 2, 8192)


def test_there_are_only_so_many() -> None:
    ones = [
        processor(n, *(ModelDetails(f"{n}-{m}") for m in range(200))) for n in range(8)
    ]
    assert len(served_models(ones)) == LISTED_MAX


# To clients


def test_a_gateways_list_comes_through() -> None:
    ones = [processor(n, WHOLE, loaded=Loaded(9.0, 3, 2, 4096)) for n in range(1, 4)]
    ones.append(processor(4, ModelDetails("guide")))
    models = served_models(ones)
    reply = msgspec.json.decode(msgspec.json.encode(models_reply(models)))
    assert models_of(reply) == models


def test_what_a_hostile_gateway_lists_is_harmless() -> None:
    key = "ab" * 32
    entry = {
        "name": "m\x1b[2J",
        "engine": 7,
        "processors": [0, 1, 9, -1, True, "0"],
        "sizeBytes": 10**30,
        "digest": "x",
        "capabilities": ["chat", None, "\x07"],
        "modifiedS": float("nan"),
        "loaded": {"keptS": -1, "vramBytes": 1.5},
    }
    reply = {"processors": [key, "no key"], "models": [entry, None, {"name": ""}]}
    (model,) = models_of(reply)
    assert (model.name, model.engine, model.peers) == ("m", "", (key,))
    assert model.loaded == LoadedModel()
    assert model.details == ModelDetails("m", capabilities=frozenset({"chat"}))
    assert models_of({}) == models_of({"models": 1, "processors": {}}) == []


# The catalog


class TellingEngine(ScriptedEngine):
    """Counts how often it is asked."""

    shows = 0

    async def show(self, model: str) -> ModelDetails:
        self.shows += 1
        if model == "broken":
            raise engine_down("Not now.")
        return replace(WHOLE, name=model)


async def test_a_model_is_asked_for_once() -> None:
    engine = TellingEngine()
    changed = asyncio.Event()
    catalog = ModelCatalog(engine, changed.set)
    listed = ModelInfo("a", details=ModelDetails("a", digest=DIGEST))
    broken = ModelInfo("broken", context_tokens=7)
    running = asyncio.ensure_future(catalog.run())
    catalog.serve([listed, broken])
    assert catalog.details[0] == listed.details, "the list's own word counts meanwhile"
    assert catalog.details[1].context_tokens == 7
    changed.clear()
    await asyncio.wait_for(changed.wait(), 2)
    assert catalog.details[0].parameters == "3.2B"
    for _ in range(3):
        catalog.serve([listed, broken])
        await asyncio.sleep(0)
    assert engine.shows == 2
    changed.clear()
    catalog.serve([replace(listed, details=ModelDetails("a", digest="c3" * 32))])
    await asyncio.wait_for(changed.wait(), 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# All together


async def test_what_ollama_tells_reaches_a_client(tmp_path) -> None:
    async with RoutingWorld(tmp_path) as world, OllamaStub() as stub:
        engine = OllamaEngine(host=stub.url)
        stub.models["load:latest"].is_loaded = True
        await world.worker(engine)
        await world.entry()
        client = world.client()
        async with asyncio.timeout(5):
            while True:
                models = {model.name: model for model in await client.models()}
                tools = models.get("tools:latest")
                if tools and tools.context_tokens:
                    break
                await asyncio.sleep(0.05)
        assert tools.details is not None
        assert tools.details.size_bytes == 2_019_393_189
        assert (tools.details.parameters, tools.details.quantization) == (
            "3.2B",
            "Q4_K_M",
        )
        assert tools.details.capabilities == {
            *(CHAT, COMPLETION, IMAGES, JSON, PREFIX, TOOLS)
        }
        assert len(tools.details.digest) == 64
        assert len(tools.peers) == 1
        assert models["nomic-embed-text:latest"].is_embedder
        loaded = models["load:latest"].loaded
        assert loaded is not None
        assert loaded.kept_s is not None
        assert 200 < loaded.kept_s <= 300
        assert loaded.context_tokens == 4096
        assert tools.loaded is None
        await engine.close()


def test_a_file_has_its_hash_once_it_was_hashed(tmp_path: Path) -> None:
    path, store = write_model(tmp_path / "tiny.gguf"), ModelStore(tmp_path)
    assert known_sha256(store, "tiny", path) == ""
    Shelf(store.files, store).refresh()
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    assert known_sha256(store, "tiny", path) == wanted
    files = ModelFiles({"tiny": path}, digest_of=lambda *_: wanted)
    told = files.details("tiny")
    assert (told.digest, told.vector_length, told.file_format) == (wanted, 64, "gguf")
    path.write_bytes(path.read_bytes() + b"more")
    assert known_sha256(store, "tiny", path) == ""
    assert known_sha256(store, "../tiny", path) == ""


# To people


def test_people_see_kind_and_size() -> None:
    model = ModelInfo(WHOLE.name, "ollama", ("ab",), details=WHOLE)
    assert kind_words(model) == ["3.2B", "Q4_K_M", "1.9 GiB"]
    line = model_line(replace(model, loaded=LoadedModel()))
    assert line.split(maxsplit=1) == [
        "llama3.2:3b",
        "1 peer  ollama  3.2B Q4_K_M 1.9 GiB  loaded",
    ]
    assert model_line(ModelInfo("m")).split() == ["m", "0", "peers"]
    assert model_fields(model)["quantization"] == "Q4_K_M"
    assert "quantization" not in model_fields(ModelInfo("m"))
