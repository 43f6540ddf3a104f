"""The root key's file and the backup: with a passphrase, without, and damaged."""

from __future__ import annotations

import dataclasses

import pytest

from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.net.identity import PublicKey
from peerchat.trust import lockbox, rootkey
from peerchat.trust.rootkey import (
    Backup,
    Issued,
    WrongPassphrase,
    is_locked,
    lock_root,
    pack_backup,
    unlock_root_untrusted,
    unpack_backup_untrusted,
)

SEED, SALT, NONCE = b"hidden seed of thirty-two bytes.", b"s" * 16, b"n" * 24
BACKUP = Backup(
    name="home",
    root_seed=SEED,
    secret=b"hidden secret of thirty-two byte",
    generation=2,
    record_key=b"hidden record key, 32 bytes long",
    bootstrap=("1.2.3.4:5",),
    issued=(
        Issued(
            b"i" * 16,
            PublicKey(b"p" * 32),
            {"client": PublicKey(b"c" * 32)},
            frozenset({"auth", "admin"}),
            "Peer",
            99,
        ),
    ),
    record_seq=7,
    record=b"record",
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id at its least, for tests that lock often."""
    bindings = lockbox.bindings
    for name in ("OPSLIMIT", "MEMLIMIT"):
        least = getattr(bindings, f"crypto_pwhash_argon2id_{name}_MIN")
        monkeypatch.setattr(bindings, f"crypto_pwhash_argon2id_{name}_MODERATE", least)


def test_moderate_argon2id_opens_and_refuses() -> None:
    data = lock_root(SEED, "pass phrase", salt=SALT, nonce=NONCE)
    assert SEED not in data
    assert unlock_root_untrusted(data, "pass phrase") == SEED
    with pytest.raises(WrongPassphrase, match="wrong passphrase"):
        unlock_root_untrusted(data, "pass phrase ")


@pytest.mark.usefixtures("quick")
def test_locked_root_needs_its_passphrase() -> None:
    data = lock_root(SEED, "é", salt=SALT, nonce=NONCE)
    assert is_locked(data)
    assert unlock_root_untrusted(data, "e\u0301") == SEED
    for missing in (None, ""):
        with pytest.raises(WrongPassphrase, match="needed"):
            unlock_root_untrusted(data, missing)
    for wrong in ("e", "x" * 5000, "\ud800"):
        with pytest.raises(WrongPassphrase):
            unlock_root_untrusted(data, wrong)


def test_plain_root_looks_at_no_passphrase() -> None:
    data = lock_root(SEED, None, salt=SALT, nonce=NONCE)
    assert not is_locked(data)
    assert unlock_root_untrusted(data, None) == SEED
    assert unlock_root_untrusted(data, "whatever") == SEED


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("passphrase", [None, "pass"])
def test_every_tampered_byte_and_cut_is_damage(passphrase: str | None) -> None:
    root = lock_root(SEED, passphrase, salt=SALT, nonce=NONCE)
    backup = pack_backup(BACKUP, passphrase, salt=SALT, nonce=NONCE)
    for data, unlock in (
        (root, unlock_root_untrusted),
        (backup, unpack_backup_untrusted),
    ):
        for position in range(len(data)):
            changed = bytearray(data)
            changed[position] ^= 1
            for wrong in (bytes(changed), data[:position]):
                with pytest.raises(DecodeError):
                    unlock(wrong, passphrase)
        with pytest.raises(DecodeError):
            unlock(data + b"\0", passphrase)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("passphrase", [None, "pass"])
def test_backup_round_trip(passphrase: str | None) -> None:
    data = pack_backup(BACKUP, passphrase, salt=SALT, nonce=NONCE)
    assert is_locked(data) == (passphrase is not None)
    assert (b"hidden" in data) == (passphrase is None)
    assert unpack_backup_untrusted(data, passphrase) == BACKUP
    if passphrase is not None:
        with pytest.raises(WrongPassphrase):
            unpack_backup_untrusted(data, "another")


def test_one_kind_of_file_is_not_taken_for_the_other() -> None:
    root = lock_root(SEED, None, salt=SALT, nonce=NONCE)
    backup = pack_backup(BACKUP, None, salt=SALT, nonce=NONCE)
    with pytest.raises(DecodeError, match="another kind"):
        unpack_backup_untrusted(root, None)
    with pytest.raises(DecodeError, match="another kind"):
        unlock_root_untrusted(backup, None)
    with pytest.raises(DecodeError, match="another kind"):
        is_locked(b"hello")


def test_later_kind_is_told_from_damage() -> None:
    data = lockbox._finish(rootkey.ROOT_MAGIC + b"\2" + bytes(100))
    with pytest.raises(DecodeError, match="later version"):
        unlock_root_untrusted(data, None)


def test_locked_file_that_ends_early() -> None:
    data = lockbox._finish(rootkey.ROOT_MAGIC + b"\1" + bytes(39))
    with pytest.raises(DecodeError):
        unlock_root_untrusted(data, "pass")


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(BACKUP)
    assert "record'" not in repr(BACKUP)


def test_our_own_mistakes() -> None:
    with pytest.raises(LocalProtocolError, match="empty"):
        lock_root(SEED, "", salt=SALT, nonce=NONCE)
    with pytest.raises(LocalProtocolError):
        lock_root(b"short", None, salt=SALT, nonce=NONCE)
    with pytest.raises(LocalProtocolError):
        lock_root(SEED, "pass", salt=b"short", nonce=NONCE)
    wrong: list[dict[str, object]] = [
        {"secret": b"short"},
        {"bootstrap": ("x",) * 65},
        {"issued": (dataclasses.replace(BACKUP.issued[0], serial=b"short"),)},
    ]
    for changes in wrong:
        with pytest.raises(LocalProtocolError):
            pack_backup(
                dataclasses.replace(BACKUP, **changes), None, salt=SALT, nonce=NONCE
            )
