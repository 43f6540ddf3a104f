"""Where a home keeps its private swarms, and which of them is used by default.

Names and paths, and the little that settings and logins need to know of a swarm; the
rest of these files is `peerchat.services.membership`'s.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from .settings import Home

NO_SWARM = "none"
"""What ``--swarm`` says for no swarm at all."""

RESERVED_NAMES = frozenset({NO_SWARM, "current", "open", "solo"})

CURRENT_BYTES_MAX = 64
SWARM_BYTES_MAX = 64 * 1024
"""Larger files were not written here."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


def parse_swarm_name(text: str) -> str:
    """The name as it is kept: in lower case.

    Raises:
        ValueError: with what it must be instead.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise ValueError("1 to 32 letters a to z, digits and inner hyphens")
    if name in RESERVED_NAMES:
        raise ValueError(f"another name than {name}, which has a meaning of its own")
    return name


def swarm_dir(home: Home, name: str) -> Path:
    """The folder of one swarm, mode 0700."""
    return home.swarms_dir / name


def swarm_path(home: Home, name: str) -> Path:
    """What the home knows of a swarm: JSON, mode 0600."""
    return swarm_dir(home, name) / "swarm.json"


def current_path(home: Home) -> Path:
    """The name of the swarm that was used last."""
    return home.swarms_dir / "current"


def read_current(home: Home) -> str:
    """The swarm used last; empty when there is none, or it was left since."""
    try:
        with current_path(home).open("rb") as file:
            name = parse_swarm_name(file.read(CURRENT_BYTES_MAX).decode())
    except (OSError, ValueError):
        return ""
    return name if swarm_path(home, name).is_file() else ""


def read_root(home: Home, name: str) -> str:
    """The swarm's root public key, hex; empty when it cannot be read."""
    try:
        with swarm_path(home, name).open("rb") as file:
            content = json.loads(file.read(SWARM_BYTES_MAX))
    except (OSError, ValueError):
        return ""
    root = content.get("root") if isinstance(content, dict) else None
    return root if isinstance(root, str) else ""
