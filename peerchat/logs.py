"""Two logs: lines for people on standard error, JSON lines in the log folder.

`event.log` has everything, `error.log` the errors, `prompt.log` prompts and answers if
the operator switched that on. Records are redacted, stamped with the id of the request
they belong to, and written by a thread of their own: a slow or full disk never stops
the event loop or the process.
"""

from __future__ import annotations

import copy
import logging
import os
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import TextIOWrapper
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO
from urllib.parse import unquote, urlsplit

from pythonjsonlogger.json import JsonFormatter

from .redaction import Redactor
from .sanitize import display_text
from .settings import Settings

SECRET_VARIABLES = (
    "PEERCHAT_PASSWORD",
    "PEERCHAT_NEW_PASSWORD",
    "PEERCHAT_CODE",
    "PEERCHAT_PASSPHRASE",
)
"""Secrets that come by the environment and are in no setting."""

EVENT_LOG = "event.log"
ERROR_LOG = "error.log"
PROMPT_LOG = "prompt.log"

LOG_BYTES_MAX = 10 * 1024 * 1024
LOG_FILES_MAX = 5
"""With the file in use, a log takes 60 MiB at most."""

QUEUE_RECORDS_MAX = 10_000
"""Records that wait for the disk; when it stands still, later ones are dropped, for
whoever can provoke a log line must not be able to fill the memory."""

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)

PROMPTS = "peerchat.prompts"
"""The logger of `log_prompt`; its records go to `prompt.log` and nowhere else."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The request that the running task works for."""

redactor = Redactor()
"""Of this process; tell it of every secret that is read."""

_STANDARD = frozenset(
    (*logging.makeLogRecord({}).__dict__, "message", "asctime", "request_id")
)


@contextmanager
def request_context(identifier: str) -> Iterator[None]:
    """Stamp every record of this block, and of tasks begun in it, with a request id."""
    token = request_id.set(identifier)
    try:
        yield
    finally:
        request_id.reset(token)


def log_prompt(prompt: str, answer: str, **fields: object) -> None:
    """Note a prompt and its answer; goes nowhere unless ``prompt_log`` is on."""
    logger = logging.getLogger(PROMPTS)
    if logger.isEnabledFor(logging.INFO):
        logger.info("prompt", extra={**fields, "prompt": prompt, "answer": answer})


class Logs:
    """The logs of one process, from `start` to `close`; a context manager.

    Args:
        settings: says where, and how much.
        verbosity: ``-v`` adds one, ``-q`` takes one away; moves the level.
        stream: for the lines for people; None where the app has the screen.
    """

    def __init__(
        self, settings: Settings, *, verbosity: int = 0, stream: TextIO | None = None
    ) -> None:
        self._settings = settings
        self._level = level_of(settings.log_level, verbosity)
        self._stream = stream
        self._listeners: list[QueueListener] = []
        self._installed: list[tuple[logging.Logger, QueueHandler]] = []
        given = (os.environ.get(name, "") for name in SECRET_VARIABLES)
        url = urlsplit(settings.database_url)
        redactor.learn(
            settings.jwt_secret,
            settings.engine_key,
            settings.database_url,
            url.password or "",
            unquote(url.password or ""),
            *given,
        )

    def start(self) -> Self:
        """Begin to write; everything logged from now on is kept."""
        folder = self._settings.home.log_dir
        with suppress(OSError):  # the first record that cannot be written says it
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handlers: list[logging.Handler] = [
            _file_handler(folder / EVENT_LOG, self._level),
            _file_handler(folder / ERROR_LOG, logging.ERROR),
        ]
        if self._stream is not None:
            handlers.append(_line_handler(self._stream, self._level))
        self._install(logging.getLogger(), handlers)
        logging.getLogger("peerchat").setLevel(self._level)
        logging.captureWarnings(True)
        prompts = logging.getLogger(PROMPTS)
        prompts.propagate = False
        prompts.setLevel(logging.CRITICAL)
        if self._settings.prompt_log:
            prompts.setLevel(logging.INFO)
            self._install(prompts, [_file_handler(folder / PROMPT_LOG, logging.INFO)])
        return self

    def close(self) -> None:
        """Write what waits, and stop; idempotent."""
        for logger, handler in self._installed:
            logger.removeHandler(handler)
            handler.close()
        for listener in self._listeners:
            listener.stop()
            for target in listener.handlers:
                target.close()
        self._installed.clear()
        self._listeners.clear()
        logging.captureWarnings(False)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _install(self, logger: logging.Logger, handlers: list[logging.Handler]) -> None:
        records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_RECORDS_MAX)
        listener = QueueListener(records, *handlers, respect_handler_level=True)
        listener.start()
        handler = _Entrance(records)
        logger.addHandler(handler)
        self._listeners.append(listener)
        self._installed.append((logger, handler))


def level_of(name: str, verbosity: int = 0) -> int:
    """The level for a name of the settings, moved by ``-v`` and ``-q``."""
    at = LEVELS.index(logging.getLevelNamesMapping()[name.upper()])
    return LEVELS[min(max(at - verbosity, 0), len(LEVELS) - 1)]


class _Entrance(QueueHandler):
    """Makes a record final on the thread that logs: text, request id, no secret."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        final = copy.copy(record)
        final.msg = redactor.redact(record.getMessage())
        final.message, final.args = final.msg, None
        if record.exc_info:
            text = record.exc_text or _TRACEBACKS.formatException(record.exc_info)
            final.exc_text = redactor.redact(text)
            final.exc_info = None
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                known = value is None or isinstance(value, int | float)
                final.__dict__[name] = value if known else redactor.redact(str(value))
        final.__dict__.setdefault("request_id", request_id.get())
        return final

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop what the full queue does not take."""


_TRACEBACKS = logging.Formatter()


def _file_handler(path: Path, level: int) -> logging.Handler:
    handler = _PrivateFile(path)
    handler.setLevel(level)
    handler.setFormatter(
        _JsonLines(
            ["levelname", "name", "message", "request_id", "exc_text"],
            rename_fields={
                "levelname": "level",
                "name": "logger",
                "exc_text": "traceback",
            },
            timestamp=True,
        )
    )
    return handler


class _JsonLines(JsonFormatter):
    """One JSON object a line; what is empty is left out."""

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        return {
            key: value for key, value in log_data.items() if value not in (None, "")
        }


class _PrivateFile(RotatingFileHandler):
    """A rotating log with mode 0600 that outlives a full disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            maxBytes=LOG_BYTES_MAX,
            backupCount=LOG_FILES_MAX,
            encoding="utf-8",
            delay=True,
            errors="backslashreplace",
        )
        self._has_complained = False

    def _open(self) -> TextIOWrapper:
        handle = os.open(
            self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        return open(handle, "a", encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once that the log is not written; the process goes on."""
        error = sys.exc_info()[1]
        if not self._has_complained and sys.stderr is not None:
            self._has_complained = True
            reason = error.strerror if isinstance(error, OSError) else error
            with suppress(OSError, ValueError):
                print(f"cannot write {self.baseFilename}: {reason}", file=sys.stderr)
        # A stream that failed is opened anew for the next record.
        with suppress(OSError, ValueError):
            if self.stream is not None:
                self.stream.close()
        self.stream = None


def _line_handler(stream: TextIO, level: int) -> logging.Handler:
    handler = _PeopleStream(stream)
    handler.setLevel(level)
    handler.setFormatter(_Lines(level))
    return handler


class _PeopleStream(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """Nobody reads standard error any more: nothing to tell, nobody to tell it."""


class _Lines(logging.Formatter):
    """``12:00:00 warning services.gateway: words [request]``; inert, one line.

    A traceback is shown only when debugging; else its last line.
    """

    def __init__(self, level: int) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._is_debug = level <= logging.DEBUG

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("peerchat.")
        words = display_text(record.getMessage(), keep_newlines=False)
        identifier = getattr(record, "request_id", "")
        line = f"{self.formatTime(record, self.datefmt)} {record.levelname.lower()} "
        line += f"{name}: {words}" + (f" [{identifier[:8]}]" if identifier else "")
        if record.exc_text:
            trace = display_text(record.exc_text)
            line += f"\n{trace}" if self._is_debug else f": {trace.splitlines()[-1]}"
        return line
