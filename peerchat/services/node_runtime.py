"""Everything of a node on one event loop: DHT, swarm, roles, client.

A serving process runs the roles it was told to, and leaves `serve.json` behind. Any
other process is a client: of a running serve of its home, of a swarm, or, with nothing
configured, of all the roles in itself (docs/decisions/0004-solo-mode.md). The app of
whoever made a private swarm runs its roles too, so that there is somebody in it.

What only roles need, the database above all, is loaded with the first of them: most
commands are clients.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from peerchat.api import Account, ApiError, ErrorCode, Role, RoleHealth
from peerchat.config import prepare_home
from peerchat.net import HyperDHT, system_env
from peerchat.net.errors import NetError
from peerchat.net.identity import PublicKey
from peerchat.session_file import Session
from peerchat.settings import OPEN_WARNING, Settings

from .contribution_file import ContributionFile
from .dht_face import Dht
from .emails import LOCAL_EMAIL
from .identity import CERTIFIED_ROLES, Identity, load_identity
from .private_mode import PrivateMode
from .run_file import RunFile, remove_run_file, write_run_file
from .supervisor import DRAIN_S, RunnableRole, Supervisor
from .swarm import Swarm, api_error_of, not_granted
from .trust import Trust
from .way_in import LOOPBACK, find_way_in

if TYPE_CHECKING:
    from peerchat.client import Client
    from peerchat.gateways import Gateways

    from .metrics import RoleMetrics
    from .processor import ProcessorRole
    from .store import Store

logger = logging.getLogger(__name__)

SOLO_ROLES = frozenset({Role.AUTH, Role.GATEWAY, Role.PROCESSOR})


class NodeRuntime:
    """A node; ``async with`` or `start` and `close`.

    Args:
        settings: of this process.
        is_serving: run ``settings.roles`` for others and say so in `serve.json`.
        is_app: stays open; of an admin's home it runs what a private swarm needs.
        on_change: called when the health of a role changed.
        make_dht: gives an unstarted DHT for bootstrap nodes (None: the first node of
            a network of its own) and the host to bind; real ones unless told.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        is_serving: bool = False,
        is_app: bool = False,
        on_change: Callable[[], None] = lambda: None,
        make_dht: Callable[[Sequence[str] | None, str], Dht] | None = None,
    ) -> None:
        self.settings = settings
        self.is_serving = is_serving
        self.is_app = is_app
        self.mode = settings.mode
        self.attached_to: RunFile | None = None
        """The running serve of this home that this process uses."""
        self.engine = ""
        """The engine of this process and why it was chosen."""
        self.http = ""
        """Where the bridge of this process serves."""
        self.ollama = ""
        """Where it serves Ollama's clients, if it has a port for them."""
        self.metrics_urls: Sequence[str] = ()
        self.metrics: dict[Role, RoleMetrics] = {}
        self._on_change = on_change
        self._make_dht = make_dht or _make_dht
        self._resources = AsyncExitStack()
        self._dht: Dht | None = None
        self._swarm: Swarm | None = None
        self._private: PrivateMode | None = None
        self._client: Client | None = None
        self._supervisor: Supervisor | None = None
        self._store: Store | None = None
        self._processor: ProcessorRole | None = None
        self._bootstrap: Sequence[str] = ()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def dht(self) -> Dht:
        """The DHT node; only once started."""
        assert self._dht is not None
        return self._dht

    @property
    def swarm(self) -> Swarm:
        """The swarm; only once started."""
        assert self._swarm is not None
        return self._swarm

    @property
    def trust(self) -> Trust | None:
        """Of a private swarm."""
        return self._private.trust if self._private else None

    @property
    def client(self) -> Client:
        """A client on this node; only once started."""
        assert self._client is not None
        return self._client

    @property
    def bootstrap(self) -> str:
        """``host:port`` that others can bootstrap from, if this is a first node."""
        return "" if self._bootstrap or self._dht is None else self._local_address()

    def role_keys(self) -> dict[Role, str]:
        """The public keys of the roles that this process serves, hex."""
        return {one.role: one.public_key.hex() for one in self.swarm.services}

    def health(self) -> Sequence[RoleHealth]:
        """How the roles of this process are."""
        return self._supervisor.health() if self._supervisor else ()

    async def start(self) -> None:
        """Join, run the roles, connect the client; returns when all is ready.

        Raises:
            ApiError: what cannot be had, and what to do; nothing is left running.
        """
        try:
            await self._start()
        except BaseException as error:
            await self.close(drain_s=0)
            if isinstance(error, NetError):
                raise api_error_of(error) from error
            raise

    async def close(self, *, drain_s: float = DRAIN_S) -> None:
        """Withdraw, let running answers finish for ``drain_s``, end; idempotent."""
        if self._client is not None and drain_s == 0:
            await self._client.aclose()
        if self._supervisor is not None:
            await self._supervisor.stop(drain_s)
        await self._resources.aclose()

    @property
    def is_paused(self) -> bool:
        """Whether this home's processor takes nothing new."""
        return ContributionFile(self.settings.home).is_paused()

    async def set_paused(self, is_paused: bool) -> None:
        """Pause it or let it go on, whichever process of the home it runs in.

        Raises:
            ApiError: STORE_FAILED; TIMEOUT when the other process does not take it.
        """
        if self._processor is not None:
            self._processor.set_paused(is_paused)
            return
        file = ContributionFile(self.settings.home)
        file.set_paused(is_paused)
        await asyncio.to_thread(file.wait_taken, is_paused=is_paused)

    @property
    def processor_problem(self) -> str:
        """Why this process's processor answers nothing now; empty when it does."""
        return self._processor.problem if self._processor is not None else ""

    async def use_local_account(self) -> Account:
        """Log the client in as this home's own user, without a password.

        Raises:
            ApiError: INVALID_REQUEST outside solo mode.
        """
        if not self.settings.is_solo:
            raise ApiError(
                ErrorCode.INVALID_REQUEST,
                "The local account exists only without a swarm: log in, or register.",
                status=400,
            )
        token = await self._local_token()
        self.client.adopt(Session(LOCAL_EMAIL, token, is_local=True))
        return Account(LOCAL_EMAIL, is_local=True)

    async def _local_token(self) -> str:
        from .account_roles import SECRET_NAME
        from .tokens import TokenIssuer

        secret = await (await self._open_store()).secret(SECRET_NAME)
        return TokenIssuer(secret).issue(LOCAL_EMAIL)

    async def _start(self) -> None:
        for line in prepare_home(self.settings.home):
            logger.warning("%s", line)
        identity = load_identity(self.settings.home.seed_path)
        await self._join()
        if self.mode == "open" and self.is_serving:  # commands say it themselves
            logger.warning(OPEN_WARNING)
        if self.mode == "private":
            identity = await self._enter_private(identity)
        attached = self.attached_to
        keys = attached.keys() if attached else {}
        self._swarm = Swarm(
            self.dht,
            identity,
            preferred={role: PublicKey(key) for role, key in keys.items()},
            prompt_bytes_max=self.settings.prompt_bytes_max,
            trust=self.trust,
        )
        self._resources.push_async_callback(self._swarm.close)
        await self._start_client()
        await self._start_roles()
        if self._private is not None and self._is_staying:
            await self._private.let_in(self._open_store)
        await self._ensure_account()
        if self.is_serving:
            await self._tell()

    # The DHT

    async def _join(self) -> None:
        way = await find_way_in(self.settings, is_serving=self.is_serving)
        self.settings, self.mode = way.settings, way.mode
        self.attached_to, self._bootstrap = way.attached_to, way.bootstrap
        await self._open_dht(way.bootstrap or None, way.host)

    async def _enter_private(self, identity: Identity) -> Identity:
        """Know whom to trust; gives who this peer is in the swarm."""
        private = PrivateMode(self.dht, self.settings, identity)
        self._resources.push_async_callback(private.close)
        wanted = {role.value for role in CERTIFIED_ROLES if role in self.settings.roles}
        await private.start(
            is_staying=self._is_staying,
            wanted=wanted if self.is_serving else frozenset(),
        )
        self._check_roles(private.trust)
        self._private = private
        return private.trust.identity

    def _check_roles(self, trust: Trust) -> None:
        """Say at once that this home is not in the swarm any more, or which role it may
        not serve."""
        if self.is_serving:
            if problem := trust.problem:
                raise ApiError(ErrorCode.FORBIDDEN, problem, status=403)
            for role in CERTIFIED_ROLES:
                if role in self.settings.roles and role.value not in trust.roles:
                    raise not_granted(role)

    @property
    def _is_staying(self) -> bool:
        """Whether others may count on this process."""
        return self.is_serving or (self.is_app and self.attached_to is None)

    async def _open_dht(self, bootstrap: Sequence[str] | None, host: str) -> None:
        dht = self._make_dht(bootstrap, host)
        self._resources.push_async_callback(dht.close)
        await dht.start()
        self._dht = dht

    def _local_address(self) -> str:
        host, port = self.dht.address
        return f"{LOOPBACK if host == '0.0.0.0' else host}:{port}"

    # Roles

    async def _start_roles(self) -> None:
        roles = self._wanted_roles()
        self._supervisor = Supervisor(
            self.swarm,
            on_change=self._on_change,
            on_restart=lambda role: self.metrics[role].restarted(),
        )
        if not roles:
            return
        from .metrics import RoleMetrics

        self.metrics = {role: RoleMetrics(role) for role in sorted(roles)}
        for metrics in self.metrics.values():
            metrics.watch(self.dht)
        if self._private is not None:
            self._private.count_in(self.metrics)
        built: dict[Role, RunnableRole] = {}
        if roles & {Role.AUTH, Role.GATEWAY}:
            built.update(await self._build_account_roles(roles))
        if Role.PROCESSOR in roles:
            built[Role.PROCESSOR] = await self._build_processor()
        if Role.BRIDGE in roles:
            built[Role.BRIDGE] = self._build_bridge()
        await self._supervisor.start(built)
        bridge = built.get(Role.BRIDGE)
        self.http = str(getattr(bridge, "url", ""))
        self.ollama = str(getattr(bridge, "ollama_url", ""))

    def _wanted_roles(self) -> frozenset[Role]:
        if self.is_serving:
            return self.settings.roles
        if self.attached_to is not None:
            return frozenset()
        if self.settings.is_solo:
            return SOLO_ROLES
        trust = self.trust
        if trust is None or not self.is_app or not trust.is_admin:
            return frozenset()
        return frozenset(role for role in SOLO_ROLES if role.value in trust.roles)

    async def _build_account_roles(
        self, roles: frozenset[Role]
    ) -> Mapping[Role, RunnableRole]:
        from .account_roles import build_account_roles

        if not self.settings.jwt_secret and self.mode == "open":
            _warn_of_secret(roles)
        return await build_account_roles(
            roles,
            self.swarm,
            self.settings,
            await self._open_store(),
            self.metrics,
            self._resources.callback,
        )

    async def _build_processor(self) -> RunnableRole:
        from .engines.choose import choose_engine
        from .processor import ProcessorRole

        choice = await choose_engine(self.settings)
        self._resources.push_async_callback(choice.engine.close)
        self.engine = choice.reason
        logger.info("engine: %s", choice.reason)
        if self._shares_models:
            self._share_models()
        self._processor = ProcessorRole(
            self.swarm,
            choice.engine,
            self.settings,
            metrics=self.metrics[Role.PROCESSOR],
            key_pair=self.swarm.identity.role_key_pair(Role.PROCESSOR),
        )
        return self._processor

    @property
    def _shares_models(self) -> bool:
        wanted = self.settings.share_models
        return self.mode == "private" if wanted is None else wanted

    def _share_models(self) -> None:
        """Give model files to members of the swarm, until this is closed."""
        from .models.file_server import FileServer
        from .models.shelf import shelf_of

        files = FileServer(shelf_of(self.settings))
        self.swarm.attach_members(Role.PROCESSOR, files.attach)
        files.start()
        self._resources.push_async_callback(files.close)

    def _build_bridge(self) -> RunnableRole:
        from .bridge.own_account import OwnAccount
        from .bridge.role import BridgeRole

        is_solo = self.settings.is_solo
        return BridgeRole(
            self.settings,
            self.gateways,
            self.metrics[Role.BRIDGE],
            OwnAccount(self.settings, self._local_token if is_solo else None),
        )

    # The client

    @property
    def gateways(self) -> Gateways:
        """The swarm's gateways, with a token in each call."""
        return self.client.gateways

    async def _start_client(self) -> None:
        from peerchat.client import Client

        client = Client(self.settings, swarm=self.swarm, remember=True)
        await client.start()
        self._client = client
        self._resources.push_async_callback(client.aclose)

    async def _ensure_account(self) -> None:
        """Without a swarm nobody has to log in; a local token is renewed each time."""
        account = self.client.account
        is_wanted = account is None or account.is_local
        if self.settings.is_solo and not self.is_serving and is_wanted:
            await self.use_local_account()

    async def _open_store(self) -> Store:
        if self._store is None:
            from .store import open_store

            self._store = await open_store(
                self.settings.home.store_path, self.settings.database_url
            )
            self._resources.push_async_callback(self._store.close)
        return self._store

    # What others are told

    async def _tell(self) -> None:
        from .metrics_http import MetricsEndpoints

        endpoints = MetricsEndpoints(self.settings)
        self._resources.push_async_callback(endpoints.close)
        self.metrics_urls = await endpoints.start(list(self.metrics.values()))
        path = self.settings.home.run_path
        content = RunFile(
            pid=os.getpid(),
            mode=self.mode,
            swarm=self.settings.swarm,
            dht=self._local_address(),
            bootstrap=list(self._bootstrap) or [self._local_address()],
            roles={role.value: key for role, key in self.role_keys().items()},
            http=self.http,
            metrics=list(self.metrics_urls),
            started_s=time.time(),
        )
        write_run_file(path, content)
        self._resources.callback(remove_run_file, path, pid=content.pid)


def _make_dht(bootstrap: Sequence[str] | None, host: str) -> HyperDHT:
    if bootstrap is None:
        return HyperDHT.bootstrapper(system_env(), host, 0)
    return HyperDHT(system_env(), bootstrap=bootstrap, host=host)


def _warn_of_secret(roles: frozenset[Role]) -> None:
    if Role.AUTH not in roles:
        logger.warning(
            "no JWT_SECRET is set: this gateway accepts only tokens of its own home; "
            "set the JWT_SECRET of the auth peers to accept theirs"
        )
    elif Role.GATEWAY not in roles:
        logger.warning(
            "no JWT_SECRET is set: gateways of other homes will not accept the tokens "
            "given here; set the same JWT_SECRET for both"
        )
    else:
        logger.info(
            "no JWT_SECRET is set: tokens are signed with this home's own, which "
            "gateways of other homes do not know"
        )
