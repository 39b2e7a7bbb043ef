"""The warden's last words."""

import asyncio

from brokers.base import START
from brokers.registry import make_broker
from formicary.ant.obituary import publish_obituaries
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events import topics
from formicary.events.ants import AntLeft, Held
from formicary.events.base import Event
from formicary.ids import AntId, Incarnation, JobId

_URL = "memory://obituary"
#: A named broker lives as long as somebody knows it.
_KEEPER = make_broker(_URL)


def test_an_obituary_names_the_incarnation_and_what_was_killed() -> None:
    publish_obituaries(_URL, "ant", [("ant@1", []), ("ant@2", [(3, "job", 4, 5)])], give_up_s=5.0)
    assert asyncio.run(_read()) == [
        AntLeft(ant_id=AntId("ant"), incarnation=Incarnation("ant@1")),
        AntLeft(ant_id=AntId("ant"), incarnation=Incarnation("ant@2"), attempts=(Held(3, JobId("job"), 4, 5),)),
    ]


def test_a_warden_gives_up_when_owners_have_noticed_by_themselves() -> None:
    publish_obituaries(_URL, "ant", [("ant@9", [])], give_up_s=0.0)
    assert AntLeft(ant_id=AntId("ant"), incarnation=Incarnation("ant@9")) not in asyncio.run(_read())


async def _read() -> list[Event]:
    broker = make_broker(_URL)
    await broker.open()
    packets = await Bus(broker, "reader", SystemClock()).read(topics.ANTS, START, 100, 0.1)
    await broker.close()
    return [event for packet in packets for event in packet.events]
