"""What a home keeps of its private swarms, and what it says of damaged files."""

from __future__ import annotations

import dataclasses
import stat
import sys
from pathlib import Path

import pytest

from peerchat.api import ApiError, ErrorCode, Role
from peerchat.config import find_home, load_settings, prepare_home
from peerchat.net.identity import PublicKey
from peerchat.services.identity import Identity
from peerchat.services.membership import Membership, StoredRecord, SwarmHomes
from peerchat.session_file import Session, SessionFile, swarm_scope
from peerchat.swarm_files import swarm_dir, swarm_path

ROOT = PublicKey(b"r" * 32)
SECRET = b"s" * 32


def membership(name: str = "team", **changes: object) -> Membership:
    made = Membership(
        name=name,
        root=ROOT,
        secret=SECRET,
        generation=3,
        record_key=b"k" * 32,
        chain=b"chain",
        enrol_key=PublicKey(b"e" * 32),
        bootstrap=("127.0.0.1:1",),
        record_seq=7,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def homes(tmp_path: Path) -> SwarmHomes:
    home = find_home(tmp_path)[0]
    prepare_home(home)
    return SwarmHomes(home)


def test_what_is_saved_is_loaded(homes: SwarmHomes):
    homes.save(membership())
    homes.save(membership("other", enrol_key=None, bootstrap=(), is_owner=True))
    assert homes.load("Team") == membership()
    assert homes.load("other").is_owner
    assert homes.names() == ["other", "team"]
    assert homes.find_root(ROOT) is not None
    assert homes.find_root(PublicKey(b"x" * 32)) is None
    assert repr(SECRET)[2:-1] not in repr(homes.load("team"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_modes_are_narrow_and_repaired(homes: SwarmHomes, caplog):
    homes.save(membership())
    homes.save_root("team", b"root")
    homes.save_record("team", StoredRecord(1, b"v", b"s", b"b"))
    homes.set_current("team")
    folder = swarm_dir(homes.home, "team")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    swarm_path(homes.home, "team").chmod(0o644)
    folder.chmod(0o755)
    homes.load("team")
    assert "0644" in caplog.text
    assert stat.S_IMODE(swarm_path(homes.home, "team").stat().st_mode) == 0o600
    (folder / "root.key").chmod(0o640)
    told = prepare_home(homes.home)
    assert len(told) == 2
    assert all("team" in line for line in told)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", [b"", b"{", b'{"name": 1}', b"\xff", b"x" * 70_000])
def test_a_damaged_file_says_what_to_do(homes: SwarmHomes, damage: bytes):
    homes.save(membership())
    swarm_path(homes.home, "team").write_bytes(damage)
    with pytest.raises(ApiError) as caught:
        homes.load("team")
    assert caught.value.code is ErrorCode.STORE_FAILED
    assert "backup" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_short_secret_is_damage(homes: SwarmHomes):
    homes.save(membership())
    path = swarm_path(homes.home, "team")
    path.write_text(path.read_text().replace(SECRET.hex(), "00"))
    with pytest.raises(ApiError, match="damaged"):
        homes.load("team")


@pytest.mark.parametrize("name", ["", "..", "a/b", "none", "x" * 33, "-a", "ü"])
def test_names_are_checked(homes: SwarmHomes, name: str):
    for work in (homes.load, homes.remove):
        with pytest.raises(ApiError, match="name is"):
            work(name)


def test_nobody_is_in_an_unknown_swarm(homes: SwarmHomes):
    for work in (homes.load, homes.remove, homes.set_current):
        with pytest.raises(ApiError, match="swarm join"):
            work("team")
    with pytest.raises(ApiError, match="swarm join"):
        homes.update("team", lambda one: one)
    assert homes.current() == ""


def test_the_last_used_swarm_is_the_setting(homes: SwarmHomes, tmp_path: Path):
    def swarm(**given: object) -> str:
        return load_settings({"home": tmp_path, **given}, environ={}).swarm

    assert swarm() == ""
    homes.save(membership())
    assert swarm() == ""
    homes.set_current("team")
    assert swarm() == "team"
    assert swarm(bootstrap="127.0.0.1:1") == "team"
    assert swarm(swarm="none") == ""
    assert swarm(swarm="Other") == "other"
    assert swarm(is_open=True) == ""
    homes.set_current("")
    assert swarm() == ""
    homes.set_current("team")
    homes.remove("team")
    assert (homes.current(), homes.names()) == ("", [])


def test_an_older_record_never_replaces_a_newer_one(homes: SwarmHomes):
    homes.save(membership())
    assert homes.load_record("team") is None
    newer = StoredRecord(9, b"v", b"s", b"b")
    homes.save_record("team", newer)
    homes.save_record("team", StoredRecord(8, b"old", b"s", b"b"))
    assert homes.load_record("team") == newer
    (swarm_dir(homes.home, "team") / "record.bin").write_bytes(b"\x93")
    assert homes.load_record("team") is None


def test_update_changes_what_is_there(homes: SwarmHomes):
    homes.save(membership())
    homes.update("team", lambda one: dataclasses.replace(one, record_seq=8))
    assert homes.load("team").record_seq == 8


def test_a_second_swarm_of_the_same_name_gets_another(homes: SwarmHomes):
    assert homes.free_name("Team", ROOT) == "team"
    homes.save(membership())
    other = homes.free_name("team", ROOT)
    assert other == f"team-{ROOT.hex()[:6]}"
    homes.save(membership(other))


def test_two_swarms_see_different_peers():
    identity = Identity(b"i" * 32)
    one, other = identity.in_swarm(ROOT), identity.in_swarm(PublicKey(b"x" * 32))
    assert one.key_pair("client") == identity.in_swarm(ROOT).key_pair("client")
    keys = {
        peer.purpose_key_pair(purpose).public_key
        for peer in (identity, one, other)
        for purpose in ("client", "auth", "gateway", "processor", "enrol", "token")
    }
    assert len(keys) == 18
    assert one.purpose_key_pair("auth") == one.role_key_pair(Role.AUTH)
    assert one.peer_key_pair.public_key not in keys


def test_a_login_belongs_to_a_root_key(homes: SwarmHomes, tmp_path: Path):
    homes.save(membership())
    settings = load_settings({"home": tmp_path, "swarm": "team"}, environ={})
    scope = swarm_scope(settings)
    assert ROOT.hex() in scope
    file = SessionFile(settings.home.session_path)
    file.save(scope, Session("ann@example.org", "token"))
    homes.remove("team")
    homes.save(membership(root=PublicKey(b"z" * 32)))
    assert file.load(swarm_scope(settings)) is None
