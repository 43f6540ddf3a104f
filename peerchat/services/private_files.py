"""Files that only their owner may read: mode 0600 in folders of mode 0700.

Written as a whole, so that a crash leaves the old content or the new one. A laxer mode
is repaired with a warning when the file is read. Failures are `ApiError` with a line
that says what to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

from peerchat.api import ApiError, ErrorCode

logger = logging.getLogger(__name__)


def read_private(path: Path, bytes_max: int) -> bytes | None:
    """What is in the file; None when there is none.

    Raises:
        ApiError: STORE_FAILED, when it cannot be read or is longer than it may be.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(bytes_max + 1)
        if mode & 0o077 and sys.platform != "win32":
            path.chmod(0o600)
            logger.warning("%s was open to others (mode %04o); now 0600", path, mode)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise file_error(path, error) from error
    if len(data) > bytes_max:
        raise ApiError(
            ErrorCode.STORE_FAILED,
            f"{path} is longer than peerchat writes it: restore it from a backup.",
        )
    return data


def write_private(path: Path, data: bytes) -> None:
    """Put the whole file in place at once.

    Raises:
        ApiError: STORE_FAILED, when the disk does not take it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file with mode 0600 from the start.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise file_error(path, error) from error


def file_error(path: Path, error: OSError) -> ApiError:
    """What a failure of the disk means for a person."""
    reason = (error.strerror or str(error)).lower()
    return ApiError(
        ErrorCode.STORE_FAILED,
        f"Cannot use {path}: {reason}. Check its mode and the disk's free space.",
    )
