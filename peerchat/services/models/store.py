"""The folder of pulled models: GGUF files, and beside each what is known of it.

``NAME.gguf`` is whole and its hash was right; ``NAME.gguf.part`` is on its way.
``hashes/NAME`` holds the hashes of its pieces, for peers that pull it from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from peerchat.api import ApiError, ErrorCode
from peerchat.settings import Settings

SUFFIX = ".gguf"
PART_SUFFIX = ".gguf.part"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A file of the store."""

    name: str
    path: Path
    size_bytes: int
    is_whole: bool


class ModelStore:
    """The files of one folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> dict[str, Path]:
        """Whole models by name."""
        return {one.name: one.path for one in self.list() if one.is_whole}

    def list(self) -> list[StoredModel]:
        """All, those on their way too, by name."""
        found: list[StoredModel] = []
        if not self.folder.is_dir():
            return found
        for path in sorted(self.folder.iterdir()):
            for suffix in (SUFFIX, PART_SUFFIX):
                name = path.name.removesuffix(suffix)
                if name != path.name and _NAME.fullmatch(name) and path.is_file():
                    size = path.stat().st_size
                    found.append(StoredModel(name, path, size, suffix == SUFFIX))
        return found

    def path(self, name: str) -> Path:
        """Where a model of this name is, or will be."""
        return self.folder / f"{_checked(name)}{SUFFIX}"

    def part_path(self, name: str) -> Path:
        """Where it is while it is not whole."""
        return self.folder / f"{_checked(name)}{PART_SUFFIX}"

    def hashes_path(self, name: str) -> Path:
        """Where the hashes of its pieces are kept."""
        return self.folder / "hashes" / _checked(name)

    def prepare(self) -> None:
        """Make the folder."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove(self, name: str) -> None:
        """Delete a model, whole or not; MODEL_MISSING when there is none."""
        paths = [self.path(name), self.part_path(name)]
        there = [path for path in paths if path.exists()]
        if not there:
            raise ApiError(
                ErrorCode.MODEL_MISSING,
                f"There is no pulled model {name!r}; see 'peerchat models list'.",
                status=404,
            )
        for path in there:
            path.unlink()
        self.hashes_path(name).unlink(missing_ok=True)


def model_files(settings: Settings) -> dict[str, Path]:
    """What llama.cpp can serve, by name: the file of the settings, then pulled ones."""
    files: dict[str, Path] = {}
    if settings.model_file:
        path = Path(settings.model_file).expanduser()
        files[path.stem] = path
    return files | ModelStore(settings.home.models_dir).files()


def name_of_file(text: str) -> str:
    """The name for a file of a URL or a path; empty when there is none in it."""
    name = text.rsplit("/", 1)[-1].removesuffix(SUFFIX)
    return name if _NAME.fullmatch(name) else ""


def is_name(name: str) -> bool:
    """Whether a model file can have the name: never a path, nor hidden."""
    return _NAME.fullmatch(name) is not None


def _checked(name: str) -> str:
    if not is_name(name):
        raise ApiError(
            ErrorCode.INVALID_REQUEST,
            f"{name!r} cannot name a model file: use letters, digits, '.', '_', '-'.",
            status=400,
        )
    return name
