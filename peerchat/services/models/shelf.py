"""The files that a processor gives to its swarm, with the hashes of their pieces.

Hashing a model takes minutes, so it happens in a thread, once for each file as it is:
the hashes stay in the folder of the store. A file that changes is given no more until
it was hashed again.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from peerchat.contribution import Contribution
from peerchat.services.engines.gguf_header import GgufError, read_header_untrusted
from peerchat.settings import Settings

from .file_wire import (
    HASH_BYTES,
    OFFERS_MAX,
    PIECE_BYTES,
    PIECES_MAX,
    Offer,
    hash_piece,
    root_of,
)
from .store import ModelStore, is_name, model_files

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """Hashing was given up because the shelf closes."""


class _Kept(msgspec.Struct, array_like=True):
    """What is kept beside a file; it is hashed again when size or time differ."""

    size_bytes: int
    modified_ns: int
    sha256: bytes
    hashes: bytes


@dataclass(frozen=True, slots=True)
class Shelved:
    """A file that is given."""

    offer: Offer
    path: Path
    modified_ns: int
    hashes: bytes
    """32 bytes for each piece."""


class Shelf:
    """What is given now.

    Args:
        files: names and paths, whole files only.
        store: keeps the hashes.
        gives: whether the owner gives a model of that name.
    """

    def __init__(
        self,
        files: Callable[[], Mapping[str, Path]],
        store: ModelStore,
        gives: Callable[[str], bool] = lambda _name: True,
    ) -> None:
        self._files = files
        self._store = store
        self._gives = gives
        self._by_root: dict[bytes, Shelved] = {}
        self._is_closed = threading.Event()

    def offers(self) -> list[Offer]:
        """All, by name."""
        found = [one.offer for one in self._by_root.values()]
        return sorted(found, key=lambda offer: offer.name)[:OFFERS_MAX]

    def find(self, root: bytes) -> Shelved | None:
        """The file of a root."""
        return self._by_root.get(root)

    def close(self) -> None:
        """Give up hashing soon; from any thread."""
        self._is_closed.set()

    def refresh(self) -> None:
        """Look at the folder, hash what is new; blocks, for a thread."""
        found: dict[bytes, Shelved] = {}
        for name, path in self._files().items():
            if not is_name(name) or not self._gives(name):
                continue
            try:
                one = self._shelve(name, path)
            except (OSError, GgufError) as error:
                logger.warning("%s is not given to the swarm: %s", name, error)
                continue
            found[one.offer.root] = one
            # The next one may take minutes; this one is ready.
            self._by_root = {**self._by_root, one.offer.root: one}
        self._by_root = found

    def read(self, one: Shelved, index: int) -> bytes:
        """A piece; raises OSError when the file is not what was hashed. Blocks."""
        with one.path.open("rb") as file:
            file.seek(index * PIECE_BYTES)
            data = file.read(PIECE_BYTES)
        told = one.path.stat()
        is_same = (told.st_size, told.st_mtime_ns) == (
            one.offer.size_bytes,
            one.modified_ns,
        )
        if not is_same or len(data) != one.offer.piece_bytes(index):
            raise OSError(f"{one.path} has changed")
        return data

    def _shelve(self, name: str, path: Path) -> Shelved:
        told = path.stat()
        size, modified_ns = told.st_size, told.st_mtime_ns
        for one in self._by_root.values():
            is_same = (one.offer.name, one.path, one.offer.size_bytes) == (
                name,
                path,
                size,
            )
            if is_same and one.modified_ns == modified_ns:
                return one
        kept = self._kept(name, size, modified_ns) or self._hash(name, path)
        pieces = kept.hashes
        hashes = [
            pieces[at : at + HASH_BYTES] for at in range(0, len(pieces), HASH_BYTES)
        ]
        offer = Offer(name, size, kept.sha256, root_of(size, hashes))
        return Shelved(offer, path, kept.modified_ns, kept.hashes)

    def _kept(self, name: str, size: int, modified_ns: int) -> _Kept | None:
        return _kept(self._store, name, size, modified_ns)

    def _hash(self, name: str, path: Path) -> _Kept:
        read_header_untrusted(path)
        told = path.stat()
        if told.st_size > PIECES_MAX * PIECE_BYTES:
            raise OSError(f"{path} is too large")
        whole = hashlib.sha256()
        pieces = bytearray()
        with path.open("rb") as file:
            while data := file.read(PIECE_BYTES):
                if self._is_closed.is_set():
                    raise Stopped
                whole.update(data)
                pieces += hash_piece(data)
        kept = _Kept(told.st_size, told.st_mtime_ns, whole.digest(), bytes(pieces))
        self._store.prepare()
        target = self._store.hashes_path(name)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        draft.write_bytes(msgspec.msgpack.encode(kept))
        draft.replace(target)
        return kept


def _kept(store: ModelStore, name: str, size: int, modified_ns: int) -> _Kept | None:
    """What was found out when the file was hashed, as long as it is the same."""
    try:
        data = store.hashes_path(name).read_bytes()
        kept = msgspec.msgpack.decode(data, type=_Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    is_same = (kept.size_bytes, kept.modified_ns) == (size, modified_ns)
    pieces = -(-size // PIECE_BYTES)
    is_whole = len(kept.hashes) == pieces * HASH_BYTES
    return kept if is_same and is_whole and len(kept.sha256) == HASH_BYTES else None


def known_sha256(store: ModelStore, name: str, path: Path) -> str:
    """SHA-256 of a file in hex; empty when it was not hashed as it is now."""
    if not is_name(name):
        return ""
    try:
        told = path.stat()
    except OSError:
        return ""
    kept = _kept(store, name, told.st_size, told.st_mtime_ns)
    return kept.sha256.hex() if kept else ""


def shelf_of(settings: Settings) -> Shelf:
    """What a home gives: the files that llama.cpp can serve here, as far as they are
    of the models that its owner offers."""
    store = ModelStore(settings.home.models_dir)
    gives = Contribution(settings.offer).offers
    return Shelf(lambda: model_files(settings), store, gives)
