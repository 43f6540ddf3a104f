"""`peerchat chat`: line mode. A line is a prompt; a line with a slash is a command."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from peerchat.api import Answer, ApiError
from peerchat.sanitize import display_line
from peerchat.settings import Settings

from .account import account_line
from .ask import as_history, print_answer
from .listing import model_fields, model_line, peer_fields, peer_line
from .options import Invocation
from .run import report, termination
from .session import open_client, read_password, sign_in

if TYPE_CHECKING:
    from peerchat.client import Client

HISTORY_TURNS_MAX = 20
"""Earlier turns that go along with a prompt: what small contexts can hold."""

HELP = """\
A line is a prompt. Ctrl+C stops an answer; Ctrl+D or /exit leaves.
  /register EMAIL    make an account       /login EMAIL     log in
  /logout            forget the session    /status          who, and who is there
  /token             print the API token   /settoken TOKEN  use a token
  /models            what is served        /model NAME      use a model
  /clear             forget this chat      /exit            leave"""


async def run_chat(settings: Settings, call: Invocation, model: str | None) -> None:
    """Read lines until the end of input; errors are told and the chat goes on."""
    async with open_client(settings, call) as client:
        chat = LineChat(client, call, model or settings.model or None)
        with suppress(ApiError):
            await sign_in(client)
        if sys.stdin.isatty():
            call.out.note("peerchat: a line is a prompt, /help lists the commands")
        while (line := await read_line()) is not None:
            if not await chat.handle(line.strip()):
                break


async def read_line() -> str | None:
    """One line from a person or a pipe; None at the end.

    Read by a thread of its own that nobody waits for: the executor's threads are
    joined at the end, so that Ctrl+C at the prompt would leave only after Enter.
    """
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()

    def tell(text: str | None) -> None:
        if not line.done():
            line.set_result(text)

    def read() -> None:
        text = _read_blocking()
        with suppress(RuntimeError):  # the loop is closed: nobody wants it any more
            loop.call_soon_threadsafe(tell, text)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return await line


def _read_blocking() -> str | None:
    if sys.stdin.isatty():
        try:
            return input("> ")
        except EOFError:
            return None
    return sys.stdin.readline() or None


async def _close_when(stop: asyncio.Event, answer: Answer) -> None:
    await stop.wait()
    await answer.aclose()


class LineChat:
    """The state of one line-mode chat."""

    def __init__(self, client: Client, call: Invocation, model: str | None) -> None:
        self._client = client
        self._call = call
        self._out = call.out
        self._model = model
        self._turns: list[tuple[str, str]] = []

    async def handle(self, line: str) -> bool:
        """Do what a line says; False when it says to leave."""
        if not line:
            return True
        if line in ("/exit", "/quit"):
            return False
        try:
            if line.startswith("/"):
                await self._command(line)
            else:
                await self._ask(line)
        except* ApiError as group:
            for error in group.exceptions:
                report(self._out, error)
        return True

    async def _ask(self, prompt: str) -> None:
        answer = self._client.ask(
            prompt, model=self._model, history=as_history(self._turns)
        )
        async with termination((signal.SIGINT,)) as stop, asyncio.TaskGroup() as group:
            stopping = group.create_task(_close_when(stop, answer))
            try:
                text, finished = await print_answer(answer, self._out)
            finally:
                stopping.cancel()
        if finished is not None:
            self._turns = [*self._turns, (prompt, text)][-HISTORY_TURNS_MAX:]

    async def _command(self, line: str) -> None:
        try:
            name, *args = shlex.split(line)
        except ValueError:
            name, *args = line.split()
        commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/register": self._register,
            "/login": self._login,
            "/logout": self._logout,
            "/status": self._status,
            "/token": self._token,
            "/settoken": self._set_token,
            "/models": self._models,
            "/model": self._use_model,
            "/clear": self._clear,
            "/help": self._help,
        }
        if name not in commands:
            self._out.error(f"no command is called {display_line(name)}: try /help")
            return
        await commands[name](args[0] if args else "")

    async def _register(self, email: str) -> None:
        if self._is_missing(email, "/register EMAIL"):
            return
        password = await asyncio.to_thread(read_password, is_new=True)
        await self._client.register(email, password)
        await self._log_in(email, password)

    async def _login(self, email: str) -> None:
        if self._is_missing(email, "/login EMAIL"):
            return
        await self._log_in(email, await asyncio.to_thread(read_password))

    async def _log_in(self, email: str, password: str) -> None:
        account = await self._client.login(email, password)
        shown = display_line(account.email)
        self._out.line(f"logged in as {shown}", {"email": shown})

    async def _logout(self, _: str) -> None:
        await self._client.logout()
        self._out.line("logged out", {"email": None})

    async def _status(self, _: str) -> None:
        status = await self._client.status()
        who = account_line(status.account) if status.account else "nobody is logged in"
        self._out.line(who, {"email": status.account and status.account.email})
        if status.problem:
            self._out.error(status.problem)
        for peer in await self._client.peers():
            self._out.line(peer_line(peer), peer_fields(peer))

    async def _token(self, _: str) -> None:
        token = self._client.token
        if not token:
            self._out.error("not logged in: /login EMAIL first")
            return
        self._out.line(token, {"token": token})

    async def _set_token(self, token: str) -> None:
        if self._is_missing(token, "/settoken TOKEN"):
            return
        from peerchat.session_file import Session

        # Only a token that holds takes the place of the one there is.
        account = (await self._client.gateways.verify(token)).account
        self._client.adopt(Session(account.email, token))
        shown = display_line(account.email)
        self._out.line(f"logged in as {shown}", {"email": shown})

    async def _models(self, _: str) -> None:
        for model in await self._client.models():
            self._out.line(model_line(model), model_fields(model))

    async def _use_model(self, name: str) -> None:
        self._model = name or None
        shown = display_line(name) or "the processor's choice"
        self._out.line(f"model: {shown}", {"model": name or None})

    async def _clear(self, _: str) -> None:
        self._turns.clear()
        self._out.line("this chat is forgotten", {"cleared": True})

    async def _help(self, _: str) -> None:
        self._out.line(HELP, {"help": HELP})

    def _is_missing(self, value: str, usage: str) -> bool:
        if not value:
            self._out.error(f"say {usage}")
        return not value
