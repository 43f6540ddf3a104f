"""`Client`: a swarm's gateways for programs, with a login of its own.

    async with Client(bootstrap="192.0.2.7:49737", open=True) as client:
        await client.login("ann@example.org", password)
        async with client.ask("Why is the sky blue?") as answer:
            async for event in answer:
                if isinstance(event, Fragment):
                    print(event.text, end="")

Every failure is a `peerchat.api.ApiError`: a code for programs, a line for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from .account_replies import ManagedAccounts
from .api import (
    Account,
    AnswerEvent,
    ApiError,
    ErrorCode,
    Finished,
    Fragment,
    Hop,
    Message,
    ModelInfo,
    PeerView,
    RateLimit,
    Usage,
)
from .failover_answer import FailoverAnswer
from .gateways import Gateways, Swarm, Verified
from .session_file import Session, SessionFile, swarm_scope
from .settings import Settings


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """An answer that was read to its end."""

    text: str
    usage: Usage
    request_id: str
    thinking: str = ""
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """Whether anybody is there, and who is logged in."""

    has_gateway: bool
    problem: str
    """Why there is no gateway, in one line; empty when there is one."""
    account: Account | None
    rate_limit: RateLimit | None


class Client:
    """An asynchronous client of a swarm.

    Use it as a context manager, or call `start` and `aclose`. It joins the network of
    its own, or stands on a `Swarm` that somebody else runs.

    Args:
        settings: what `peerchat.config.load_settings` gives; else the keywords, the
            environment and the configuration file decide.
        swarm: stand on this one and leave it open at the end; settings are then
            needed only to remember the login.
        remember: read the login from the session file of this home at the start, and
            keep it there.
        options: names of `Settings`, and ``open`` for ``is_open``: ``home``,
            ``bootstrap``, ``swarm_name``, …
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        swarm: Swarm | None = None,
        remember: bool = False,
        **options: object,
    ) -> None:
        self._settings = settings
        self._options = options
        self._given_swarm = swarm
        self._wants_memory = remember
        self._gateways: Gateways | None = None
        self._memory: SessionFile | None = None
        self._scope = ""
        self._session: Session | None = None
        self._resources = AsyncExitStack()
        self.rate_limit: RateLimit | None = None
        """What is left, by the newest answer that told."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Join the network; raises `ApiError` when no DHT node answers."""
        if self._gateways is not None:
            return
        if self._settings is None and (self._given_swarm is None or self._wants_memory):
            self._settings = _settings_from(self._options)
        if self._wants_memory and self._settings is not None:
            self._memory = SessionFile(self._settings.home.session_path)
            self._scope = swarm_scope(self._settings)
            self._session = self._memory.load(self._scope)
        self._gateways = Gateways(await self._joined())

    async def aclose(self) -> None:
        """Stop running answers and leave the network; idempotent."""
        gateways, self._gateways = self._gateways, None
        if gateways is not None:
            await gateways.close()
        await self._resources.aclose()

    @property
    def gateways(self) -> Gateways:
        """The calls below this class, which take a token each time."""
        if self._gateways is None:
            raise ApiError(
                ErrorCode.STOPPED,
                "The client is not open: use it in `async with`, or call start().",
                status=503,
            )
        return self._gateways

    @property
    def account(self) -> Account | None:
        """Who is logged in here; `verify` asks whether the swarm agrees."""
        session = self._session
        return Account(session.email, session.is_local) if session else None

    @property
    def token(self) -> str:
        """The API token; empty when nobody is logged in."""
        return self._session.token if self._session else ""

    async def register(self, email: str, password: str, code: str = "") -> Account:
        """Make an account; does not log in.

        Args:
            email: its name.
            password: at least 8 characters.
            code: for swarms where one registers by invitation.

        Raises:
            ApiError: ``CONFLICT`` when it exists, ``INVALID_REQUEST``, ``NO_AUTH``;
                ``FORBIDDEN`` for a code that is missing, wrong, used or expired.
        """
        return await self.gateways.register(email, password, code)

    async def login(
        self, email: str, password: str, *, is_local: bool = False
    ) -> Account:
        """Log in and keep the token for the calls that follow.

        Args:
            email: of an account made with `register`.
            password: its password; not kept.
            is_local: mark the account as one made without asking.

        Raises:
            ApiError: ``UNAUTHORIZED`` for a wrong password, ``NO_AUTH``.
        """
        login = await self.gateways.login(email, password)
        self.adopt(Session(login.account.email, login.token, is_local))
        self.rate_limit = login.rate_limit
        return Account(login.account.email, is_local)

    def adopt(self, session: Session) -> None:
        """Use a token that came another way; remembered like a login."""
        if self._memory is not None:
            self._memory.save(self._scope, session)
        self._session = session

    async def logout(self) -> None:
        """Forget the token, also in the session file; no gateway is asked."""
        self._session = None
        self.rate_limit = None
        if self._memory is not None:
            self._memory.clear(self._scope)

    async def change_password(self, old: str, new: str) -> None:
        """Set a new password: ends every session of the account but this one.

        Raises:
            ApiError: ``UNAUTHORIZED`` for a wrong old password, ``INVALID_REQUEST``
                for a new one that is too short.
        """
        token = await self.gateways.change_password(self._known_token(), old, new)
        assert self._session is not None
        self.adopt(replace(self._session, token=token))

    async def logout_everywhere(self) -> None:
        """End every session of the account, on all devices, this one too."""
        await self.gateways.logout_everywhere(self._known_token())
        await self.logout()

    async def manage_accounts(
        self,
        action: str,
        email: str = "",
        *,
        limit: int | None = None,
        password: str = "",
        expires_s: int | None = None,
        after: str = "",
    ) -> ManagedAccounts:
        """Manage the swarm's accounts, as an admin.

        Args:
            action: ``list``, ``approve``, ``disable``, ``enable``, ``delete``,
                ``limit``, ``reset`` or ``invite``.
            email: whom; not for ``list`` and ``invite``.
            limit: requests in a window, for ``limit``; None: the gateways' own.
            password: the new one, for ``reset``; made when left out.
            expires_s: how long a registration code lives, for ``invite``.
            after: the last account of the page before, for ``list``.

        Raises:
            ApiError: ``FORBIDDEN`` for who is no admin, ``CONFLICT`` when it
                would leave no admin, ``INVALID_REQUEST`` for an unknown account.
        """
        return await self.gateways.manage_accounts(
            self._known_token(),
            action,
            email,
            limit=limit,
            password=password,
            expires_s=expires_s,
            after=after,
        )

    async def verify(self) -> Verified:
        """Ask a gateway whose the token is, and what is left of the limit.

        Raises:
            ApiError: ``UNAUTHORIZED`` when it is expired, or nobody is logged in.
        """
        verified = await self.gateways.verify(self._known_token())
        self.rate_limit = verified.rate_limit or self.rate_limit
        return verified

    def ask(
        self,
        prompt: str,
        *,
        model: str | None = None,
        history: Sequence[Message] = (),
        options: Mapping[str, object] | None = None,
    ) -> FailoverAnswer:
        """Begin an answer: iterate it for `Progress`, `Fragment` and one `Finished`.

        A gateway that is lost before the first fragment is replaced by another. Close
        what is not read to its end, best by ``async with client.ask(…) as answer``.

        Args:
            prompt: at most 256 KiB unless the gateway says otherwise.
            model: one of `models`; None takes the processor's own choice.
            history: earlier turns, the oldest first.
            options: of the engine, such as ``temperature``; others are ignored.

        Raises:
            ApiError: ``UNAUTHORIZED`` when nobody is logged in; other failures come
                from the iteration.
        """
        return self.gateways.ask(
            prompt,
            self._known_token(),
            model=model,
            history=history,
            options=options,
            on_event=self._note,
        )

    async def ask_whole(
        self,
        prompt: str,
        *,
        model: str | None = None,
        history: Sequence[Message] = (),
        options: Mapping[str, object] | None = None,
    ) -> WholeAnswer:
        """Ask, and read the answer to its end; stopped when cancelled."""
        async with self.ask(
            prompt, model=model, history=history, options=options
        ) as answer:
            return await read_whole(answer)

    async def trace(self, request_id: str) -> list[Hop]:
        """The steps of one of the last requests: who was asked when, and why.

        Raises:
            ApiError: no gateway remembers it.
        """
        return await self.gateways.trace(self._known_token(), request_id)

    async def models(self) -> list[ModelInfo]:
        """The models that the swarm's processors offer, by name."""
        return await self.gateways.models()

    async def peers(self) -> list[PeerView]:
        """Everyone found by look-up, pinged; who does not answer is unreachable."""
        return await self.gateways.peers()

    async def status(self) -> ClientStatus:
        """Whether a gateway answers; never raises `ApiError`."""
        try:
            await self.gateways.ping()
        except ApiError as error:
            return ClientStatus(False, error.message, self.account, self.rate_limit)
        return ClientStatus(True, "", self.account, self.rate_limit)

    async def _joined(self) -> Swarm:
        if self._given_swarm is not None:
            return self._given_swarm
        from .joining import joined

        assert self._settings is not None
        return await self._resources.enter_async_context(joined(self._settings))

    def _known_token(self) -> str:
        if not self.token:
            raise ApiError(
                ErrorCode.UNAUTHORIZED,
                "Not logged in: run peerchat login EMAIL, or peerchat register EMAIL.",
                status=401,
            )
        return self.token

    def _note(self, event: AnswerEvent) -> None:
        if isinstance(event, Finished) and event.rate_limit is not None:
            self.rate_limit = event.rate_limit


def _settings_from(options: Mapping[str, object]) -> Settings:
    from .config import load_settings

    names = {"open": "is_open", "swarm_name": "swarm"}
    return load_settings({names.get(key, key): options[key] for key in options})


async def read_whole(answer: FailoverAnswer) -> WholeAnswer:
    """Read an answer to its end; raises `ApiError` when it has none."""
    text: list[str] = []
    thinking: list[str] = []
    async for event in answer:
        if isinstance(event, Fragment):
            (thinking if event.is_thinking else text).append(event.text)
        elif isinstance(event, Finished):
            return WholeAnswer(
                "".join(text),
                event.usage,
                event.request_id or answer.request_id,
                "".join(thinking),
                event.rate_limit,
            )
    raise ApiError(
        ErrorCode.STOPPED,
        "The answer was stopped before its end.",
        status=503,
        request_id=answer.request_id,
    )
