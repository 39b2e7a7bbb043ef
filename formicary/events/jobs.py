"""Events of jobs: wake-ups between queens, requests from other services, and what the world may watch."""

from typing import Any

from formicary.events.base import Event
from formicary.ids import JobId, QueenId

Json = Any  # a JSON value


class JobLaunched(Event, frozen=True, kw_only=True, array_like=True, tag="JobLaunched"):
    """Scheduler -> owner: jobs of this shard became READY. A wake-up: the truth is in their rows."""

    shard: int
    job_ids: tuple[JobId, ...]


class JobCommandIssued(Event, frozen=True, kw_only=True, array_like=True, tag="JobCommandIssued"):
    """Manager -> owner: ``job_commands`` has rows for this shard. A wake-up only."""

    shard: int


class LeasesReleased(Event, frozen=True, kw_only=True, array_like=True, tag="LeasesReleased"):
    """Queen -> queens, broadcast: leases are free. A wake-up: the truth is in their rows."""

    queen_id: QueenId
