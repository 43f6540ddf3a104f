"""Runs a command's coroutine and turns every ending into an exit code and one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from peerchat.api import ApiError, Phase

from .output import EXIT_FAILED, EXIT_INTERRUPTED, Output

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

log = logging.getLogger(__name__)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it exists, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(out: Output, main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end; failures end the process with one line, no traceback."""
    import asyncio  # a fifth of what `peerchat --help` would load

    ended_by: list[int] = []
    try:
        with (
            _ends_as_interrupted(ended_by),
            asyncio.Runner(loop_factory=loop_factory()) as runner,
        ):
            return runner.run(main)
    except KeyboardInterrupt:
        code = 128 + ended_by[0] if ended_by else EXIT_INTERRUPTED
        raise SystemExit(code) from None
    except BrokenPipeError:
        _leave_closed_pipe()
    except (Exception, ExceptionGroup) as error:
        report(out, error)
        raise SystemExit(EXIT_FAILED) from None


@contextmanager
def _ends_as_interrupted(ended_by: list[int]) -> Iterator[None]:
    """Let what ends a command, or closes its terminal, stop it as Ctrl+C does.

    An answer that it reads is then stopped on every hop at once.
    """

    def end(number: int) -> None:
        ended_by.append(number)
        signal.raise_signal(signal.SIGINT)

    with told_to_end(end):
        yield


@contextmanager
def told_to_end(tell: Callable[[int], None]) -> Iterator[None]:
    """Tell of the signals that end a process: SIGTERM, and SIGHUP of its terminal.

    What is ignored, as under nohup, stays so.
    """
    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    ours = [one for one in numbers if signal.getsignal(one) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, lambda number, _frame: tell(number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def reported(out: Output) -> Iterator[None]:
    """For commands without a coroutine: failures end the process with one line."""
    try:
        yield
    except Exception as error:
        report(out, error)
        raise SystemExit(EXIT_FAILED) from None


def report(out: Output, error: BaseException) -> None:
    """Print the one line for an error; what nobody foresaw also goes to the log."""
    from peerchat.net.errors import DhtUnreachable, NetError

    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ApiError):
        out.error(error.message, {"code": error.code, "status": error.status})
    elif isinstance(error, DhtUnreachable):
        out.error(
            "no DHT node answers: check the network and --bootstrap HOST:PORT"
            f" ({Phase.OFFLINE})"
        )
    elif isinstance(error, NetError):
        out.error(f"the network failed: {error}")
    elif isinstance(error, OSError):
        out.error(f"{error.strerror or error}: {error.filename or 'operating system'}")
    else:
        log.error("unexpected error", exc_info=error)
        out.error(
            f"unexpected {type(error).__name__}; the details are in the log folder"
            " (peerchat status shows where)"
        )


def _leave_closed_pipe() -> NoReturn:
    """The reader of our output went away (``| head``): end without a word."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(EXIT_FAILED)


@asynccontextmanager
async def termination(
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> AsyncIterator[asyncio.Event]:
    """An event that the signals set; a second signal interrupts at once."""
    import asyncio

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    previous: dict[signal.Signals, Any] = {}

    def on_signal(number: int, _frame: object = None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(stop.set)

    for number in signals:
        previous[number] = signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
