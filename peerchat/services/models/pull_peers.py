"""Pulls a model file from peers of the swarm, one after the other.

Each piece is checked by the hashes that the file's root commits to, and stays in the
part file; what is there is checked again when it is gone on with. A peer that dies is
followed by the next one, a peer that sends something wrong is asked no more.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peerchat.api import ApiError, ErrorCode
from peerchat.net.identity import PublicKey

from .file_peer import FilePeer, FilesSwarm, Lies, PeerFailed, open_peer
from .file_wire import PIECE_BYTES, WINDOW, Offer, hash_piece
from .pull import OnProgress, Pulled, PullProgress, check_gguf, check_space
from .store import ModelStore

TRIES_MAX = 2
"""Of one peer without a piece more: what was lost on the way may come now."""

ASKED_AT_ONCE_MAX = 16
PEERS_MAX = 64
LIST_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class PeerOffers:
    """What one peer said that it gives."""

    key: PublicKey
    offers: tuple[Offer, ...]
    problem: str = ""
    """Why it gives nothing."""


async def ask_offers(swarm: FilesSwarm, keys: Sequence[PublicKey]) -> list[PeerOffers]:
    """Ask peers what they give, many at once; never raises for what they do."""
    room = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def ask(key: PublicKey) -> PeerOffers:
        try:
            async with (
                room,
                asyncio.timeout(LIST_TIMEOUT_S),
                open_peer(swarm, key) as peer,
            ):
                return PeerOffers(key, tuple(await peer.offers()))
        except PeerFailed as failure:
            return PeerOffers(key, (), str(failure))
        except TimeoutError:
            return PeerOffers(key, (), "is too slow")

    return list(await asyncio.gather(*(ask(key) for key in keys[:PEERS_MAX])))


def choose_offer(
    told: Sequence[PeerOffers], name: str, sha256: str = ""
) -> tuple[Offer, list[PublicKey]] | None:
    """The file of that name that most peers give, and who gives it."""
    givers: dict[Offer, list[PublicKey]] = {}
    for one in told:
        for offer in one.offers:
            is_it = offer.name == name and sha256 in ("", offer.sha256.hex())
            if is_it and one.key not in givers.setdefault(offer, []):
                givers[offer].append(one.key)
    found = max(givers.items(), key=lambda item: len(item[1]), default=None)
    return None if found is None or not found[1] else found


async def pull_from_peers(
    store: ModelStore,
    swarm: FilesSwarm,
    offer: Offer,
    keys: Sequence[PublicKey],
    *,
    name: str = "",
    on_progress: OnProgress = lambda _progress: None,
) -> Pulled:
    """Fetch a file into the store; cancelling keeps the part for the next time.

    Args:
        store: where it goes.
        swarm: the way to the peers.
        offer: the file.
        keys: who gives it.
        name: the model's, else the offer's.
        on_progress: told after each piece.

    Raises:
        ApiError: no peer could give it, or the disk or the file is not fit.
    """
    store.prepare()
    path = store.path(name or offer.name)
    part = store.part_path(name or offer.name)
    # A part of a URL's file is no part of it any more.
    part.with_name(part.name + ".etag").unlink(missing_ok=True)
    check_space(part.parent, offer.size_bytes - _size(part))
    await _Pull(swarm, offer, part, on_progress).run(keys)
    on_progress(PullProgress(offer.size_bytes, offer.size_bytes, is_checking=True))
    got = await asyncio.to_thread(_sha256_of, part)
    if got != offer.sha256:
        part.unlink()
        raise _failed(
            f"The file has the hash {got.hex()}, not the {offer.sha256.hex()} that its "
            "peers told; pull it from another peer."
        )
    check_gguf(part, "What the peers gave")
    part.replace(path)
    return Pulled(path.stem, path, offer.size_bytes, got.hex())


class _Pull:
    """One file on its way into its part."""

    def __init__(
        self, swarm: FilesSwarm, offer: Offer, part: Path, on_progress: OnProgress
    ) -> None:
        self._swarm = swarm
        self._offer = offer
        self._part = part
        self._on_progress = on_progress
        self._hashes: list[bytes] = []
        self._done = 0
        """Pieces that are there and right."""
        self._problems: dict[PublicKey, str] = {}

    async def run(self, keys: Sequence[PublicKey]) -> None:
        """Ask one peer after the other until all is there."""
        left = deque((key, 0) for key in keys)
        while left:
            key, tries = left.popleft()
            before = self._done
            try:
                async with open_peer(self._swarm, key) as peer:
                    await self._get(peer)
                return
            except Lies as failure:
                self._problems[key] = str(failure)
            except PeerFailed as failure:
                self._problems[key] = str(failure)
                tries = 0 if self._done > before else tries + 1
                if tries < TRIES_MAX:
                    left.append((key, tries))
                    await asyncio.sleep(tries * 0.5)
        raise self._given_up()

    async def _get(self, peer: FilePeer) -> None:
        if not self._hashes:
            hashes = await peer.hashes(self._offer)
            self._done = await asyncio.to_thread(
                _right_pieces, self._part, self._offer, hashes
            )
            self._hashes = hashes
        self._tell()
        # The window is the credit: nothing is asked for before it is written.
        asked: deque[asyncio.Future[bytes]] = deque()
        following = self._done
        with self._part.open("r+b" if self._part.exists() else "w+b") as file:
            file.seek(file.truncate(self._done_bytes))
            while self._done < self._offer.pieces:
                while len(asked) < WINDOW and following < self._offer.pieces:
                    asked.append(peer.ask_piece(self._offer, following))
                    following += 1
                data = await peer.wait(asked.popleft())
                if hash_piece(data) != self._hashes[self._done]:
                    raise Lies(f"sent a wrong piece ({self._done})")
                file.write(data)
                file.flush()
                self._done += 1
                self._tell()
            os.fsync(file.fileno())

    def _tell(self) -> None:
        self._on_progress(PullProgress(self._done_bytes, self._offer.size_bytes))

    @property
    def _done_bytes(self) -> int:
        return min(self._done * PIECE_BYTES, self._offer.size_bytes)

    def _given_up(self) -> ApiError:
        said = "; ".join(
            f"{key.hex()[:8]} {why}" for key, why in list(self._problems.items())[:4]
        )
        return ApiError(
            ErrorCode.PEER_LOST,
            f"{self._done} of {self._offer.pieces} pieces of {self._offer.name} came: "
            f"{said or 'nobody gives it'}. They are kept: run the same command again "
            "to go on.",
            status=502,
        )


def _right_pieces(part: Path, offer: Offer, hashes: Sequence[bytes]) -> int:
    """How many pieces from the beginning are there; blocks."""
    if not part.exists():
        return 0
    with part.open("rb") as file:
        for index, expected in enumerate(hashes):
            data = file.read(offer.piece_bytes(index))
            if len(data) != offer.piece_bytes(index) or hash_piece(data) != expected:
                return index
    return offer.pieces


def _sha256_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _failed(message: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_REQUEST, message, status=400)
