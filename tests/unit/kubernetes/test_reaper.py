"""When a pod has outlived its own deadline, and that such pods are looked for to the end."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from executors.kubernetes.cluster import Cluster
from executors.kubernetes.reaper import EXPIRY_MARGIN_S, Reaper, has_expired
from tests.unit.kubernetes.conftest import ApiServer

MADE = datetime(2026, 1, 1, tzinfo=UTC)


def pod(started_s: int | None = None, deadline_s: int | None = 60) -> dict[str, Any]:
    """Returns a pod that a node took so long after its creation; None: never."""
    status = {} if started_s is None else {"startTime": f"{MADE + timedelta(seconds=started_s):%Y-%m-%dT%H:%M:%SZ}"}
    spec = {} if deadline_s is None else {"activeDeadlineSeconds": deadline_s}
    return {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("found", "ends_s"),
    [
        pytest.param(pod(), 60, id="never taken: from its creation"),
        pytest.param(pod(started_s=1000), 1060, id="taken late: from its start"),
    ],
)
def test_a_pod_has_expired_a_margin_after_its_deadline(found: dict[str, Any], ends_s: int) -> None:
    end = MADE + timedelta(seconds=ends_s + EXPIRY_MARGIN_S)

    assert not has_expired(found, end)
    assert has_expired(found, end + timedelta(seconds=1))


def test_nothing_expires_without_a_deadline_or_by_an_unknown_clock() -> None:
    assert not has_expired(pod(deadline_s=None), MADE + timedelta(days=999))
    assert not has_expired(pod(), None)


async def test_a_pod_that_makes_no_sense_does_not_end_the_sweeping(server: ApiServer, connection: Cluster) -> None:
    expired, senseless = pod(), pod()
    for name, each in (("expired", expired), ("senseless", senseless)):
        each["metadata"] |= {"name": name, "uid": name}
    senseless["metadata"]["creationTimestamp"] = "long ago"
    server.lists = [[senseless], [expired]]
    reaper = Reaper(connection, "", "session", lambda _: True, every_s=0.01)

    reaper.start()
    async with asyncio.timeout(10):
        assert await server.deleted.get() == "expired"
    await reaper.close()
