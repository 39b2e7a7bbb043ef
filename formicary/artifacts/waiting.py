"""Waiting for a store that is away when a process starts."""

from typing import Final

from formicary.artifacts.base import ArtifactStore, ArtifactStoreAwayError
from formicary.clock import Clock
from formicary.outage import Outage

_FIRST_PAUSE_S: Final = 0.1
_LAST_PAUSE_S: Final = 2.0


async def open_when_there(store: ArtifactStore, clock: Clock, give_up_after_s: float | None) -> None:
    """Opens a store, waiting while it is away.

    Args:
        store: not yet opened.
        clock: the time.
        give_up_after_s: how long to wait, in seconds; None is for ever.

    Raises:
        ArtifactStoreUnavailableError: waiting would not help, or it has been long enough.
    """
    began, pause_s, outage = clock.boottime(), _FIRST_PAUSE_S, Outage("artifacts_away", clock.boottime)
    while True:
        try:
            await store.open()
        except ArtifactStoreAwayError as error:
            if give_up_after_s is not None and clock.boottime() - began + pause_s > give_up_after_s:
                raise
            outage.note(str(error))
        else:
            return outage.over()
        await clock.sleep(pause_s)
        pause_s = min(pause_s * 2, _LAST_PAUSE_S)
