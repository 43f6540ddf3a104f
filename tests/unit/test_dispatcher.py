"""The queue in front of a gateway's processors, where nobody can serve those in it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from peerchat.api import PromptRequest
from peerchat.net.identity import PublicKey
from peerchat.services import dispatcher
from peerchat.services.dispatcher import Dispatcher, Place
from peerchat.services.router import no_processor


class NobodyFree:
    """A router whose processors are all busy, or away."""

    processors = ()

    def __init__(self) -> None:
        self.is_away = False
        self.checks = 0

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def check(self, _model: str | None, _excluded: Collection[PublicKey]) -> None:
        self.checks += 1
        if self.is_away:
            raise no_processor()

    def retry_after_s(self, *_wanted: object) -> None:
        return None

    def can_serve(self, *_wanted: object) -> bool:
        return False

    def able_keys(self, *_wanted: object) -> list[PublicKey]:
        return [] if self.is_away else [PublicKey(bytes(32))]

    def slots(self, _model: str | None) -> int:
        return 1


def waiting(queue: Dispatcher, count: int) -> list[Place]:
    return [
        queue.enter(f"user {n}", PromptRequest("why?", f"r-{n}", "tiny"))
        for n in range(count)
    ]


async def test_news_that_free_nobody_count_no_places_anew() -> None:
    queue = Dispatcher(NobodyFree())
    places = waiting(queue, 3)
    for place in places:
        await place.changed()
    assert [place.position for place in places] == [1, 2, 3]
    told_at_s = queue._tell_at_s
    assert told_at_s - asyncio.get_running_loop().time() > dispatcher.TELL_S
    queue.pump()
    assert queue._tell_at_s == told_at_s
    queue.leave(places[0])
    assert queue._tell_at_s < told_at_s
    for place in places:
        queue.leave(place)


async def test_those_who_want_the_same_are_looked_at_once(monkeypatch) -> None:
    monkeypatch.setattr(dispatcher, "HOPE_S", 0.0)
    router = NobodyFree()
    queue = Dispatcher(router)
    places = waiting(queue, 20)
    queue.tick()
    assert router.checks == 1
    router.is_away = True
    queue.tick()
    queue.tick()
    errors = [place.error for place in places]
    assert all(error is not None for error in errors)
    # The id and the limit of each one's request are written into them.
    assert len(set(map(id, errors))) == len(places)
