"""What a home keeps of the private swarms that it belongs to.

``data/swarms/<name>/`` holds `swarm.json` (keys, secret, certificate), `record.bin`
(the newest swarm record that was seen) and, at an owner, `root.key`. Several processes
of a home use these files: each is replaced as a whole, and `SwarmHomes.update` changes
one under a lock. What the bytes mean is `peerchat.trust`'s.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from peerchat.api import ApiError, ErrorCode
from peerchat.net.identity import KEY_BYTES, PublicKey
from peerchat.settings import Home
from peerchat.swarm_files import (
    NO_SWARM,
    SWARM_BYTES_MAX,
    current_path,
    parse_swarm_name,
    read_current,
    swarm_dir,
    swarm_path,
)

from .private_files import file_error, read_private, write_private

SECRET_BYTES = 32
RECORD_FILE_BYTES_MAX = 512 * 1024
"""The largest record body, and its head and signature."""
ROOT_FILE_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Membership:
    """What one peer knows of one swarm; shows no secret."""

    name: str
    """In this home; the swarm's own name may be another home's word for it."""
    root: PublicKey
    secret: bytes = field(repr=False)
    generation: int
    """How often the secret was rotated."""
    record_key: bytes = field(repr=False)
    """Opens the body of the swarm record; of no use without it."""
    chain: bytes = field(repr=False)
    """This peer's newest certificate chain, encoded."""
    enrol_key: PublicKey | None = None
    """Whoever let this peer in; certificates are renewed there."""
    bootstrap: tuple[str, ...] = ()
    """DHT nodes to join by; empty: as the settings say."""
    record_seq: int = 0
    """The newest seq of the record ever seen; an older one is a rollback."""
    is_owner: bool = False
    """The root key is in this home."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """The swarm record as it was signed, and the body that its head stands for."""

    seq: int
    value: bytes
    signature: bytes
    body: bytes = field(repr=False)


class _File(msgspec.Struct, forbid_unknown_fields=False, omit_defaults=True):
    """`swarm.json`; bytes as hex, so that a person can read keys in it."""

    name: str
    root: str
    secret: str
    generation: int
    record_key: str
    chain: str
    enrol_key: str = ""
    bootstrap: list[str] = []
    record_seq: int = 0
    is_owner: bool = False


class SwarmHomes:
    """The swarms of one home; reads the disk at each call."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def names(self) -> Sequence[str]:
        """Every swarm of this home, in order."""
        found = self.home.swarms_dir.glob("*/swarm.json")
        return sorted(path.parent.name for path in found if is_name(path.parent.name))

    def load(self, name: str) -> Membership:
        """What is known of a swarm.

        Raises:
            ApiError: INVALID_REQUEST when there is no such swarm, STORE_FAILED when its
                file is damaged.
        """
        name = checked_name(name)
        path = swarm_path(self.home, name)
        data = read_private(path, SWARM_BYTES_MAX)
        if data is None:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                f"This home is in no swarm named {name}: see peerchat swarm list, or "
                "join it with an invite by peerchat swarm join.",
                status=404,
            )
        try:
            return _membership(msgspec.json.decode(data, type=_File), name)
        except (msgspec.MsgspecError, ValueError, UnicodeError):
            raise ApiError(
                ErrorCode.STORE_FAILED,
                f"{path} is damaged: restore it from a backup, or run peerchat swarm "
                f"leave {name} and join again with a new invite.",
            ) from None

    def save(self, membership: Membership) -> None:
        """Keep what is known of a swarm; new or changed."""
        name = checked_name(membership.name)
        self._make_dir(name)
        data = msgspec.json.format(msgspec.json.encode(_file(membership)))
        write_private(swarm_path(self.home, name), data)

    def update(
        self, name: str, change: Callable[[Membership], Membership]
    ) -> Membership:
        """Read, change and save in one step for all processes of this home."""
        with self._locked(name):
            before = self.load(name)
            after = change(before)
            if after != before:
                self.save(after)
        return after

    def find_root(self, root: PublicKey) -> Membership | None:
        """The swarm with this root key, whatever it is called here."""
        for name in self.names():
            with contextlib.suppress(ApiError):
                membership = self.load(name)
                if membership.root == root:
                    return membership
        return None

    def remove(self, name: str) -> None:
        """Forget a swarm, root key and all; its certificate stays valid elsewhere."""
        name = checked_name(name)
        folder = swarm_dir(self.home, name)
        if not folder.is_dir():
            self.load(name)  # says that there is none
        was_current = self.current() == name
        try:
            # Without this file it is no swarm any more, whatever happens next.
            swarm_path(self.home, name).unlink(missing_ok=True)
            shutil.rmtree(folder)
        except OSError as error:
            raise file_error(folder, error) from error
        if was_current:
            self.set_current("")

    # The swarm that is used unless told otherwise

    def current(self) -> str:
        """The swarm used last; empty: none."""
        return read_current(self.home)

    def set_current(self, name: str) -> None:
        """Use a swarm of this home from now on; empty: none."""
        text = checked_name(name) if name else NO_SWARM
        if name:
            self.load(name)
        self.home.swarms_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(current_path(self.home), text.encode())

    # The newest record, and the root key

    def load_record(self, name: str) -> StoredRecord | None:
        """The newest record that was kept; a damaged one is none: it is fetched again.

        Whoever uses it checks signature and body first.
        """
        data = read_private(self._path(name, "record.bin"), RECORD_FILE_BYTES_MAX)
        if data is None:
            return None
        try:
            return msgspec.msgpack.decode(data, type=StoredRecord)
        except (msgspec.MsgspecError, UnicodeError):
            return None

    def save_record(self, name: str, record: StoredRecord) -> None:
        """Keep a record, unless a newer one is kept already."""
        with self._locked(name):
            kept = self.load_record(name)
            if kept is None or kept.seq <= record.seq:
                path = self._path(name, "record.bin")
                write_private(path, msgspec.msgpack.encode(record))

    def load_root(self, name: str) -> bytes | None:
        """The root key as `peerchat.trust.rootkey` locked it; None at a member."""
        return read_private(self._path(name, "root.key"), ROOT_FILE_BYTES_MAX)

    def save_root(self, name: str, data: bytes) -> None:
        """Keep the locked root key."""
        self._make_dir(checked_name(name))
        write_private(self._path(name, "root.key"), data)

    def free_name(self, name: str, root: PublicKey) -> str:
        """A name for a new swarm: its own, or one with a part of its key."""
        name = checked_name(name)
        if not swarm_path(self.home, name).exists():
            return name
        return f"{name[:24].rstrip('-')}-{root.hex()[:6]}"

    def _path(self, name: str, file: str) -> Path:
        return swarm_dir(self.home, checked_name(name)) / file

    def _make_dir(self, name: str) -> None:
        folder = swarm_dir(self.home, name)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if sys.platform != "win32":
                self.home.swarms_dir.chmod(0o700)
                folder.chmod(0o700)
        except OSError as error:
            raise file_error(folder, error) from error

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One process of this home at a time; where the system has no such locks, none.

        What is done under it takes milliseconds.
        """
        if sys.platform == "win32":
            yield
            return
        import fcntl

        path = self._path(name, ".lock")
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        except FileNotFoundError:
            self.load(name)  # says that there is no such swarm
            raise
        with os.fdopen(handle, "rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def checked_name(name: str) -> str:
    """A swarm's name as it is kept.

    Raises:
        ApiError: INVALID_REQUEST, with what it must be.
    """
    try:
        return parse_swarm_name(name)
    except ValueError as error:
        raise ApiError(
            ErrorCode.INVALID_REQUEST, f"A swarm's name is {error}.", status=400
        ) from None


def is_name(text: str) -> bool:
    """Whether a swarm of a home can be called so."""
    try:
        return parse_swarm_name(text) == text
    except ValueError:
        return False


def _key(text: str) -> PublicKey:
    key = bytes.fromhex(text)
    if len(key) != KEY_BYTES:
        raise ValueError("not a key")
    return PublicKey(key)


def _membership(file: _File, name: str) -> Membership:
    """Checks lengths only; raises ValueError."""
    secret, record_key = bytes.fromhex(file.secret), bytes.fromhex(file.record_key)
    if len(secret) != SECRET_BYTES or len(record_key) != SECRET_BYTES:
        raise ValueError("not a secret")
    return Membership(
        name=name,
        root=_key(file.root),
        secret=secret,
        generation=file.generation,
        record_key=record_key,
        chain=bytes.fromhex(file.chain),
        enrol_key=_key(file.enrol_key) if file.enrol_key else None,
        bootstrap=tuple(file.bootstrap),
        record_seq=file.record_seq,
        is_owner=file.is_owner,
    )


def _file(membership: Membership) -> _File:
    return _File(
        name=membership.name,
        root=membership.root.hex(),
        secret=membership.secret.hex(),
        generation=membership.generation,
        record_key=membership.record_key.hex(),
        chain=membership.chain.hex(),
        enrol_key=(membership.enrol_key or b"").hex(),
        bootstrap=list(membership.bootstrap),
        record_seq=membership.record_seq,
        is_owner=membership.is_owner,
    )
