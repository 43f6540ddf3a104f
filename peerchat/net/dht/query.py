"""The iterative query: ask ever closer nodes until the k closest have answered.

Source: docs/PROTOCOL.md section 4; ``dht-rpc/lib/query.js``. Visits run on callbacks
from the sockets; whoever iterates waits for replies, and runs the commit at the end.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from types import TracebackType
from typing import Literal, Protocol, Self

from peerchat.net.env import Timer
from peerchat.net.errors import DhtUnreachable, NetError, RequestTimeout
from peerchat.net.identity import Address, NodeId, Target

from .addresses import is_worth_asking
from .io import DhtIo
from .messages import ErrorCode, node_id
from .pending import PendingRequest, Response
from .table import K, key_of

Commit = Callable[[Response], Awaitable[object]]
"""Stores something at a node, given its reply and so its token; raises NetError."""

CONCURRENCY = 10
SLOW_CONCURRENCY = 3
"""Right after starting from remembered nodes: the closest get a chance to answer."""

QUERY_RETRIES = 5

WIDENED_COUNT = 4 * K
"""Nodes of our own table that a query with less than k replies goes back to."""

GRACE_MIN_S = 0.05
GRACE_MAX_S = 1.0
"""How long the second try of slow nodes may take before a full result ends the query.
The reference ends it at once, and then a lost packet costs a close node."""

QUERY_TIME_MAX_S = 30.0
"""Then a query ends with what it has. Two rounds of tries among nodes of which most are
dead take half of it; more takes somebody who names addresses where nobody is."""

NODES_MAX = 2048
"""Addresses that one query remembers; a lookup among millions of nodes needs hundreds,
and more can only be made up to keep it going."""

REFERRERS_MAX = 20
"""Nodes that are told when a node which they named is down."""

_NOT_ASKED, _ANSWERED, _DOWN = range(3)


class QueryHost(Protocol):
    """What a query needs of `node.DhtNode`."""

    @property
    def io(self) -> DhtIo: ...

    async def resolve_bootstrap(self) -> Sequence[Address]: ...

    def send_down_hint(self, to: Address, down: Address) -> None: ...

    def query_started(self) -> None: ...

    def query_ended(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Candidate:
    """What is known of one address that came up."""

    referrers: list[Address]
    state: int = _NOT_ASKED


@dataclass(slots=True, eq=False)
class _Visit:
    """One node being asked."""

    address: Address
    distance: int
    request: PendingRequest | None = None
    is_slow: bool = False


class Query:
    """Iterate to get replies as they come; ``async with`` or `cancel` to stop early.

    Nothing is sent before the first iteration. Iterating raises `DhtUnreachable` when
    nobody answers at all, or when there is something to commit and no node to take it;
    if every commit fails, the last one's error.
    """

    def __init__(
        self,
        host: QueryHost,
        target: Target,
        command: int,
        value: bytes | None,
        *,
        is_internal: bool = False,
        commit: Commit | Literal[True] | None = None,
        nodes: Iterable[Address] | None = None,
        only_given_nodes: bool = False,
        concurrency: int = CONCURRENCY,
        retries: int = QUERY_RETRIES,
    ) -> None:
        self.target = target
        self.concurrency = concurrency
        self.closest_replies: list[Response] = []
        """Up to k replies of nodes that have an id, closest first."""
        self.responses = 0
        """Answers of any kind."""
        self.successes = 0
        self.errors = 0
        """Answers with an error code, and nodes that did not answer."""
        self.committed = 0
        """Nodes whose commit did not fail."""
        self._host = host
        self._command = command
        self._value = value
        self._is_internal = is_internal
        self._commit = commit
        self._retries = retries
        self._only_given_nodes = only_given_nodes
        self._target_key = key_of(target)
        self._candidates: dict[Address, _Candidate] = {}
        self._to_ask: list[tuple[int, Address]] = []
        self._visits: set[_Visit] = set()
        self._slow = 0
        self._rtt_max_s = 0.0
        self._grace_timer: Timer | None = None
        self._end_timer: Timer | None = None
        self._is_grace_over = False
        self._replies: deque[Response] = deque()
        self._news = asyncio.Event()
        self._error: NetError | None = None
        self._is_open = False
        self._is_visited = False
        self._is_ended = False
        self._has_used_table = False
        self._has_used_bootstrap = False
        self._is_slowed_down = False
        self._is_widened = False
        for address in nodes or ():
            self._consider(Address(*address), None, is_given=True)

    @property
    def closest_nodes(self) -> list[Address]:
        """Where `closest_replies` came from; good as ``nodes`` of the next query."""
        return [reply.from_address for reply in self.closest_replies]

    async def finished(self) -> list[Response]:
        """Run to the end, commit included; returns `closest_replies`."""
        async for _ in self:
            pass
        return self.closest_replies

    def cancel(self) -> None:
        """Stop asking; the iteration ends and nothing is committed. Idempotent."""
        self._commit = None
        self._stop_visiting()
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __aiter__(self) -> Query:
        return self

    async def __anext__(self) -> Response:
        try:
            await self._open()
            while not self._replies and not self._is_visited:
                self._news.clear()
                await self._news.wait()
                await self._ask_bootstrap_when_nobody_answered()
            if self._replies:
                return self._replies.popleft()
            await self._finish()
        except BaseException:
            self.cancel()
            raise
        self._end()
        raise StopAsyncIteration

    # Opening and ending

    async def _open(self) -> None:
        if self._is_open or self._is_visited:
            return
        self._is_open = True
        self._host.query_started()
        self._add_from_table()
        if len(self._to_ask) < K:
            await self._add_bootstrap()
        self._begin_asking()

    def _begin_asking(self) -> None:
        clock = self._host.io.clock
        when_s = clock.now() + QUERY_TIME_MAX_S
        self._end_timer = clock.call_at(when_s, self._stop_visiting)
        self._ask_more()

    async def _add_bootstrap(self) -> None:
        self._has_used_bootstrap = True
        for address in await self._host.resolve_bootstrap():
            self._consider(address, None)

    async def _ask_bootstrap_when_nobody_answered(self) -> None:
        """A table of nodes that are all gone, as after a move, needs the way in."""
        has_failed = self._is_visited and not self.responses and self._error is None
        if not has_failed or self._has_used_bootstrap or self._is_ended:
            return
        await self._add_bootstrap()
        if self._to_ask:
            self._is_visited = False
            self._begin_asking()

    def _stop_visiting(self) -> None:
        """Enough is known: forget the requests that are still under way."""
        self._is_visited = True
        for timer in (self._grace_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        visits, self._visits = self._visits, set()
        for visit in visits:
            if visit.request is not None:
                visit.request.cancel()
        self._news.set()

    async def _finish(self) -> None:
        if self._is_ended:
            return
        if self._error is not None:
            raise self._error
        if not self.responses and self.errors:
            raise DhtUnreachable(f"none of {self.errors} DHT nodes answered")
        if self._commit is not None:
            commit, self._commit = self._commit, None
            await self._commit_to_closest(commit)

    def _end(self) -> None:
        if self._is_open and not self._is_ended:
            self._host.query_ended()
        self._is_ended = True

    # Commit

    async def _commit_to_closest(self, commit: Commit | Literal[True]) -> None:
        if not self.closest_replies:
            raise DhtUnreachable("no DHT node that stores records answered")
        store = self._store if commit is True else commit
        failures: list[NetError] = []

        async def commit_one(reply: Response) -> None:
            try:
                await store(reply)
            except NetError as error:
                failures.append(error)
            else:
                self.committed += 1

        async with asyncio.TaskGroup() as group:
            for reply in self.closest_replies:
                group.create_task(commit_one(reply))
        if not self.committed:
            raise failures[-1]

    async def _store(self, reply: Response) -> None:
        """Repeat the query's own request with the token."""
        token = reply.token
        for _ in range(2):
            if token is None:
                raise NetError(f"{reply.from_address} gave no token")
            answer = await self._host.io.request(
                reply.from_address,
                self._command,
                is_internal=self._is_internal,
                target=self.target,
                value=self._value,
                token=token,
            )
            if answer.error != ErrorCode.INVALID_TOKEN:
                break
            # A long query outlives its first tokens; the refusal brings a new one.
            token = answer.token
        if answer.error:
            raise NetError(f"{reply.from_address} refused with error {answer.error}")

    # Candidates

    def _distance(self, candidate_id: NodeId) -> int:
        return key_of(candidate_id) ^ self._target_key

    def _is_closer(self, distance: int) -> bool:
        closest = self.closest_replies
        return len(closest) < K or distance < self._reply_distance(closest[-1])

    def _reply_distance(self, reply: Response) -> int:
        return 0 if reply.id is None else self._distance(reply.id)

    def _add_from_table(self) -> None:
        missing = K - len(self._to_ask)
        if missing <= 0:
            return
        self._has_used_table = True
        for entry in self._host.io.table.closest(self.target, missing):
            self._consider(entry.address, None)

    def _consider(
        self, address: Address, referrer: Address | None, is_given: bool = False
    ) -> None:
        """Line an address up unless it is known already or too far away."""
        known = self._candidates.get(address)
        if known is not None:
            if known.state == _DOWN and referrer is not None:
                self._host.send_down_hint(referrer, address)
            elif referrer is not None and len(known.referrers) < REFERRERS_MAX:
                known.referrers.append(referrer)
            return
        if self._only_given_nodes and not is_given:
            return
        candidate_id = node_id(address)
        distance = self._distance(candidate_id)
        is_own = candidate_id == self._host.io.table.id
        if is_own or not self._is_closer(distance) or self._is_overfull():
            return
        self._candidates[address] = _Candidate([] if referrer is None else [referrer])
        heappush(self._to_ask, (distance, address))

    def _is_overfull(self) -> bool:
        return len(self._candidates) >= NODES_MAX

    # Visits

    def _ask_more(self) -> None:
        if self._is_visited:
            return
        base = SLOW_CONCURRENCY if self._is_slowed_down else self.concurrency
        while self._to_ask and len(self._visits) < base + self._slow:
            distance, address = heappop(self._to_ask)
            if self._is_closer(distance) and not self._visit(address, distance):
                return
        if not self._has_used_table and not self.successes and not self.errors:
            self._is_slowed_down = True
        if not self._to_ask and self._is_settled():
            self._end_or_widen()

    def _is_settled(self) -> bool:
        """Nothing is under way, or only what is slow while there is enough."""
        if not self._visits:
            return True
        if self._slow < len(self._visits) or len(self.closest_replies) < K:
            return False
        if self._is_grace_over:
            return True
        if not any(self._is_closer(visit.distance) for visit in self._visits):
            return True
        self._await_second_tries()
        return False

    def _await_second_tries(self) -> None:
        if self._grace_timer is None:
            clock = self._host.io.clock
            grace_s = min(max(2 * self._rtt_max_s, GRACE_MIN_S), GRACE_MAX_S)
            self._grace_timer = clock.call_at(clock.now() + grace_s, self._end_grace)

    def _end_grace(self) -> None:
        self._is_grace_over = True
        self._ask_more()

    def _end_or_widen(self) -> None:
        if not self._has_used_table and self.successes < K / 4:
            # Most of the remembered nodes failed.
            self._add_from_table()
            self._ask_more()
        elif len(self.closest_replies) < K and not self._is_widened:
            # Among the closest that others name some are dead: we know farther ones.
            self._is_widened = True
            for entry in self._host.io.table.closest(self.target, WIDENED_COUNT):
                self._consider(entry.address, None)
            self._ask_more()
        else:
            self._stop_visiting()

    def _visit(self, address: Address, distance: int) -> bool:
        visit = _Visit(address, distance)
        try:
            visit.request = self._host.io.start_request(
                address,
                self._command,
                is_internal=self._is_internal,
                target=self.target,
                value=self._value,
                to_id=node_id(address),
                retries=self._retries,
                on_response=lambda response: self._on_response(visit, response),
                on_error=lambda error: self._on_error(visit, error),
                on_slow=lambda: self._on_slow(visit),
            )
        except NetError as error:
            self._fail(error)
            return False
        self._visits.add(visit)
        return True

    def _leave(self, visit: _Visit) -> None:
        self._visits.discard(visit)
        self._slow -= visit.is_slow

    def _on_slow(self, visit: _Visit) -> None:
        visit.is_slow = True
        self._slow += 1
        self._ask_more()

    def _on_response(self, visit: _Visit, response: Response) -> None:
        self._leave(visit)
        self._candidates[visit.address].state = _ANSWERED
        self.responses += 1
        if not visit.is_slow:
            self._rtt_max_s = max(self._rtt_max_s, response.rtt_s)
        is_success = response.error == ErrorCode.OK
        if is_success:
            self.successes += 1
            self._keep_if_close(response)
        else:
            self.errors += 1
        for address in response.closer_nodes:
            if is_worth_asking(address, response.from_address):
                self._consider(address, response.from_address)
        if self.successes + self.errors >= self.concurrency:
            self._is_slowed_down = False
        if is_success:
            self._replies.append(response)
            self._news.set()
        self._ask_more()

    def _keep_if_close(self, response: Response) -> None:
        if response.id is None or not self._is_closer(self._distance(response.id)):
            return
        if all(reply.id != response.id for reply in self.closest_replies):
            insort(self.closest_replies, response, key=self._reply_distance)
            del self.closest_replies[K:]

    def _on_error(self, visit: _Visit, error: NetError) -> None:
        self._leave(visit)
        self.errors += 1
        if not isinstance(error, RequestTimeout):
            self._fail(error)
            return
        candidate = self._candidates[visit.address]
        candidate.state = _DOWN
        for referrer in candidate.referrers:
            self._host.send_down_hint(referrer, visit.address)
        self._ask_more()

    def _fail(self, error: NetError) -> None:
        self._error = error
        self._stop_visiting()
