"""The invite line: survives copying, and says what is wrong when it did not."""

from __future__ import annotations

import base64
import dataclasses

import msgspec
import pytest

from peerchat.net.crypto.primitives import KeyPair
from peerchat.net.errors import DecodeError, LocalProtocolError
from peerchat.trust import invite as invites
from peerchat.trust.invite import Invite, format_invite, parse_invite_untrusted

INVITE = Invite(
    swarm="home",
    root=KeyPair.from_seed(b"\1" * 32).public_key,
    secret=b"hidden secret of thirty-two byte",
    enrol_key=KeyPair.from_seed(b"\2" * 32).public_key,
    code=b"hidden code 16 b",
    expires_s=1_800_000_000,
    bootstrap=("192.168.1.7:49737", "88.99.3.86@node1.hyperdht.org:49737"),
)
LINE = format_invite(INVITE)


def problem(text: str) -> str:
    with pytest.raises(DecodeError) as error:
        parse_invite_untrusted(text)
    message = str(error.value)
    assert message
    assert "\n" not in message
    assert LINE[20:] not in message
    return message


def line_of(payload: bytes) -> str:
    data = payload + invites._checksum(payload)
    text = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    return invites.SCHEME + text


def test_round_trip_on_one_line() -> None:
    assert parse_invite_untrusted(LINE) == INVITE
    assert LINE.startswith("peerchat:")
    assert not set(LINE) & set(" \n=+/'\"$&")
    bare = dataclasses.replace(INVITE, bootstrap=())
    assert parse_invite_untrusted(format_invite(bare)) == bare
    assert len(format_invite(bare)) < 220


def test_longest_invite_fits() -> None:
    longest = dataclasses.replace(
        INVITE, swarm="\N{GRINNING FACE}" * 64, bootstrap=("x" * 128,) * 4
    )
    line = format_invite(longest)
    assert len(line) <= invites.LINE_CHARS_MAX
    assert parse_invite_untrusted(line) == longest


def test_wrapped_quoted_and_indented_lines() -> None:
    wrapped = "\r\n   ".join(LINE[n : n + 60] for n in range(0, len(LINE), 60))
    for text in (
        f"  {LINE}\n",
        f"\t{wrapped}\r\n",
        f'"{LINE}"',
        f"`{LINE}`",
        f"<{LINE}>",
        f"“{wrapped}”\n",
        LINE.replace("peerchat:", "PeerChat: "),
        LINE[:50] + "\u200b" + LINE[50:] + "\ufeff",
    ):
        assert parse_invite_untrusted(text) == INVITE


def test_every_changed_character_is_found() -> None:
    for position in range(len(invites.SCHEME), len(LINE)):
        for other in ("A", "z", "-"):
            if LINE[position] != other:
                changed = LINE[:position] + other + LINE[position + 1 :]
                assert "Copy it again" in problem(changed)


def test_swapped_doubled_and_lost_characters_are_found() -> None:
    for at in range(len(invites.SCHEME), len(LINE) - 1):
        if LINE[at] != LINE[at + 1]:
            swapped = LINE[:at] + LINE[at + 1] + LINE[at] + LINE[at + 2 :]
            assert "damaged" in problem(swapped)
        problem(LINE[:at] + LINE[at] + LINE[at:])
        problem(LINE[:at] + LINE[at + 1 :])


def test_every_cut_is_named() -> None:
    for length in range(len(invites.SCHEME), len(LINE)):
        assert "cut short" in problem(LINE[:length])


def test_foreign_character_is_named_with_its_place() -> None:
    message = problem(LINE[:29] + "ß" + LINE[30:])
    assert "'\\xdf' at character 30" in message
    assert "damaged" in problem(LINE + "=")
    assert "'.'" in problem(LINE + ".")


def test_something_behind_the_line() -> None:
    assert "follows" in problem(LINE + "AAAA")
    assert "does not belong" in problem(f"{LINE} {LINE}")


@pytest.mark.parametrize(
    "text",
    ["", " \n", "hello", "http://x/peerchat:AAAA", "peercha", "x" * 100_000, '""'],
)
def test_what_is_no_invite(text: str) -> None:
    assert "not an invite" in problem(text)


def test_far_too_long_line() -> None:
    assert "too long" in problem(invites.SCHEME + "A" * 3000)


def test_later_version_is_told_from_damage() -> None:
    body = b"something new"
    payload = bytes((2,)) + len(body).to_bytes(2, "little") + body
    assert "later version" in problem(line_of(payload))
    assert "later version" in problem(line_of(b"\2" + b"\xff\xff" + body))
    assert "damaged" in problem(line_of(b"\0" + payload[1:]))


def test_later_fields_are_ignored() -> None:
    fields = ["home", INVITE.root, INVITE.secret, INVITE.enrol_key, INVITE.code]
    body = msgspec.msgpack.encode([*fields, 5, [], {"more": 1}])
    line = line_of(bytes((1,)) + len(body).to_bytes(2, "little") + body)
    assert parse_invite_untrusted(line).expires_s == 5


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["home"],
        ["home", b"short", bytes(32), bytes(32), bytes(16), 5],
        ["home", bytes(32), bytes(32), bytes(32), bytes(16), -5],
        ["home", bytes(32), bytes(32), bytes(32), bytes(16), 5, ["a b"]],
        ["home", bytes(32), bytes(32), bytes(32), bytes(16), 5, ["a"] * 5],
        ["h" * 65, bytes(32), bytes(32), bytes(32), bytes(16), 5],
    ],
    ids=str,
)
def test_malformed_inside(fields: list[object]) -> None:
    body = msgspec.msgpack.encode(fields)
    line = line_of(bytes((1,)) + len(body).to_bytes(2, "little") + body)
    assert "malformed" in problem(line)


def test_name_is_harmless() -> None:
    body = msgspec.msgpack.encode(
        ["\x1b[31mhome\u202e", bytes(32), bytes(32), bytes(32), bytes(16), 5]
    )
    line = line_of(bytes((1,)) + len(body).to_bytes(2, "little") + body)
    assert parse_invite_untrusted(line).swarm == "home"


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(INVITE)
    assert INVITE.secret.hex() not in repr(INVITE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bootstrap": ("a b",)},
        {"bootstrap": ("",)},
        {"bootstrap": ("a",) * 5},
        {"secret": b"short"},
        {"code": b"short"},
    ],
    ids=str,
)
def test_nothing_is_written_that_would_not_be_read(wrong: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        format_invite(dataclasses.replace(INVITE, **wrong))
