"""Deletes what ants that are gone left at the broker: their inboxes, and the topics where they were answered.

Rules (``protocol.md`` 5):

- An ant is gone when no incarnation of its id was live for an hour. That counts only while this queen heard whatever
  ants said, without a gap: a queen that was cut off heard none of them.
- Ids are learned from the names of the topics, so those that ants of a former run of the colony left go too.
- A reply topic goes with its ant's inbox: others of such names belong to other services.
- The leading queen does it. Nothing breaks where two do, nor where an ant comes back in that moment: it reads its inbox
  from the end, and what was sent to it meanwhile is sent again.
- Where ants share one inbox, which the broker keeps within its limits, there is nothing to delete.
"""

from collections.abc import Callable
from typing import Final

import structlog

from brokers.base import DEAD_SUFFIX
from brokers.errors import BrokerError
from formicary.bus import Bus
from formicary.clock import Clock
from formicary.events import topics
from formicary.ids import AntId
from formicary.queen.leadership import Leadership
from formicary.queen.registry import AntRegistry
from formicary.service import Service

log = structlog.get_logger(__name__)

#: How long an ant has to be gone, in seconds.
GONE_S: Final = 3600.0
#: From one look at who is live to the next, and at the broker's topics, in seconds.
LOOK_S: Final = 60.0
LIST_S: Final = 600.0


class Inboxes(Service):
    """Looks every minute who is live, and now and then at what there is.

    Args:
        listening_since: the boot time since when this queen has heard whatever ants said; None while it is cut off.
    """

    def __init__(
        self,
        bus: Bus,
        registry: AntRegistry,
        leadership: Leadership,
        clock: Clock,
        listening_since: Callable[[], float | None],
    ) -> None:
        super().__init__()
        self._bus = bus
        self._registry = registry
        self._leadership = leadership
        self._clock = clock
        self._listening_since = listening_since
        #: When each ant was live last, or its inbox was found without it.
        self._seen: dict[AntId, float] = {}
        self._list_at = 0.0

    async def run(self) -> None:
        """Looks until cancelled."""
        self.started.set()
        while True:
            try:
                await self.run_once()
            except BrokerError as error:
                log.warning("inboxes_not_looked_at", reason=str(error))
            await self._clock.sleep(LOOK_S)

    async def run_once(self) -> list[AntId]:
        """Notes who is live and deletes what is due; returns the ants whose topics are gone now."""
        now = self._clock.boottime()
        live = self._registry.ids()
        self._seen.update(dict.fromkeys(live, now))
        if self._leadership.leader_epoch() is None or now < self._list_at:
            return []
        self._list_at = now + LIST_S
        left = await self._left()
        self._seen = {ant_id: self._seen.get(ant_id, now) for ant_id in left | live}
        gone = [ant_id for ant_id in sorted(left) if self._is_gone(ant_id, now)]
        for ant_id in gone:
            await self._delete(ant_id)
        return gone

    async def _left(self) -> set[AntId]:
        names = await self._bus.topics(topics.INBOXES)
        return {AntId(name.removeprefix(topics.INBOXES)) for name in names if not name.endswith(DEAD_SUFFIX)}

    def _is_gone(self, ant_id: AntId, now: float) -> bool:
        listening_since = self._listening_since()
        if listening_since is None or ant_id in self._registry.ids():
            return False
        return now - max(listening_since, self._seen[ant_id]) >= GONE_S

    async def _delete(self, ant_id: AntId) -> None:
        await self._bus.delete_topic(topics.replies(ant_id, False))
        await self._bus.delete_topic(topics.inbox(ant_id, False))
        del self._seen[ant_id]
        log.info("inbox_deleted", ant_id=ant_id)
