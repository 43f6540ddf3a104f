"""The names that `peerchat.net` offers."""

import importlib
import subprocess
import sys

import pytest

import peerchat.net


def test_every_name_is_there_and_the_list_is_sorted():
    names = peerchat.net.__all__
    assert names == sorted(names, key=lambda n: (not n.isupper(), n.islower(), n))
    for name in names:
        assert getattr(peerchat.net, name) is not None
    assert set(names) <= set(dir(peerchat.net))


def test_names_are_those_of_their_modules():
    primitives = importlib.import_module("peerchat.net.crypto.primitives")
    assert peerchat.net.KeyPair is primitives.KeyPair


def test_topics_are_hashed_as_npm_does():
    expected = "49b94ea25b90ab818ba212f295fe3dbca44579dcca913e87be2045c4b81701b5"
    assert peerchat.net.hash_topic("gateway").hex() == expected
    assert peerchat.net.hash_topic(b"gateway").hex() == expected


def test_other_names_are_errors():
    with pytest.raises(AttributeError, match="hash_target"):
        peerchat.net.hash_target  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, peerchat.net; "
        "print([m for m in ('asyncio', 'nacl', 'socket') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
