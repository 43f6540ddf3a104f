"""What a check of `peerchat doctor` found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; ``is_ok`` None: nothing is wrong, but worth knowing."""

    name: str
    is_ok: bool | None
    detail: str

    def line(self) -> str:
        mark = {True: "ok  ", None: "note", False: "FAIL"}[self.is_ok]
        return f"{mark} {self.name:<8} {self.detail}"
