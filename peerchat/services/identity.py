"""The peer's identity seed and the key pairs that come from it.

One seed of 32 bytes belongs to one home. Every role listens under a key pair of its
own, because the same method name means different things on different roles; all are
derived, so that a peer is found under the same keys after a restart. In a private swarm
(`Identity.in_swarm`) all of them are others: two swarms cannot tell that they share a
peer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.net.crypto.primitives import SEED_BYTES, KeyPair, blake2b_256
from peerchat.net.identity import PublicKey

logger = logging.getLogger(__name__)

_PURPOSE = b"peerchat key pair: "
_SWARM = b"peerchat private swarm: "


CERTIFIED_ROLES = (Role.AUTH, Role.GATEWAY, Role.PROCESSOR)
"""Roles that a peer of a private swarm must be certified for; a bridge serves only
programs of its own machine."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A peer's secret seed; shows nothing of it."""

    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Identity:
        """A new identity that nothing keeps."""
        return cls(secrets.token_bytes(SEED_BYTES))

    def key_pair(self, purpose: str) -> KeyPair:
        """The key pair for one use, such as ``client``; the same at every call."""
        return KeyPair.from_seed(blake2b_256(_PURPOSE, purpose.encode(), key=self.seed))

    def role_key_pair(self, role: Role) -> KeyPair:
        """The key pair under which a role listens."""
        return self.key_pair(f"role {role.value}")

    def in_swarm(self, root: PublicKey) -> Identity:
        """Who this peer is in the private swarm with this root key."""
        return Identity(blake2b_256(_SWARM, root, key=self.seed))

    @property
    def peer_key_pair(self) -> KeyPair:
        """The peer's name in a private swarm: what certificates are for."""
        return self.key_pair("peer")

    def purpose_key_pair(self, purpose: str) -> KeyPair:
        """The key pair that a certificate lists for one of `trust.keys.PURPOSES`."""
        if purpose in CERTIFIED_ROLES:
            return self.role_key_pair(Role(purpose))
        return self.key_pair(purpose)


def load_identity(path: Path) -> Identity:
    """Read the seed, or make one at first start (mode 0600).

    Raises:
        ApiError: it cannot be read or written, or is not a seed.
    """
    try:
        seed = _read(path)
        if seed is None:
            _create(path)
            seed = _read(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ApiError(
            ErrorCode.STORE_FAILED,
            f"Cannot use the identity {path}: {reason}. Check its mode and free space.",
        ) from error
    if seed is None or len(seed) != SEED_BYTES:
        raise ApiError(
            ErrorCode.STORE_FAILED,
            f"The identity {path} is damaged (not {SEED_BYTES} bytes). Restore it from "
            "a backup, or delete it to become a new peer.",
        )
    return Identity(seed)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            seed = file.read(SEED_BYTES + 1)
    except FileNotFoundError:
        return None
    if mode & 0o077 and sys.platform != "win32":
        path.chmod(0o600)
        logger.warning("%s was open to others (mode %04o); now 0600", path, mode)
    return seed


def _create(path: Path) -> None:
    """Put a whole seed in place at once; another process's seed wins over ours."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".seed-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SEED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()
