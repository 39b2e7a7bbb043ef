"""What is Kafka's own: a group's progress, and topics that others made."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from structlog.testing import capture_logs

from brokers import kafka_upkeep
from brokers.base import START
from brokers.errors import BrokerRefusedError, PositionTrimmedError
from brokers.kafka_durability import judged

Server = Any  # the fixture's class lives in conftest, which cannot be imported
Rig = Any


@pytest.fixture
def server(servers: Any) -> Server:
    return servers("kafka")


def bootstrap(server: Server) -> str:
    return str(server.url.partition("://")[2].partition("?")[0])


@pytest.fixture
async def admin(server: Server) -> AsyncIterator[Any]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap(server))
    await client.start()
    yield client
    await client.close()


async def test_a_member_that_lost_its_topic_hears_of_the_one_made_anew(
    server: Server, server_rig: Rig, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    member = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, "before"))
    await member.ack(await server_rig.receive(member, 1))
    monkeypatch.setattr(member, "_next_look_at", math.inf)  # the race that the look may lose
    await server.delete_underneath(topic)
    async with asyncio.timeout(40):
        while member._consumer.assignment():
            await member.receive(1, 0.1)
    await broker.publish(server_rig.messages(topic, "after"))
    assert server_rig.bodies(await server_rig.receive(member, 1)) == ["after"]


@pytest.mark.parametrize(
    ("metadata", "offset", "given"),
    [
        ('{"l":"another","d":[[1,1]],"r":{}}', 2, ["a", "b", "c", "d"]),
        ("", 2, ["c", "d"]),
        ("", 5, ["a", "b", "c", "d"]),
    ],
    ids=["of a log that was deleted", "by an operator", "beyond the end"],
)
async def test_a_member_goes_by_what_was_committed_of_its_log(
    server_rig: Rig, server: Server, metadata: str, offset: int, given: list[str]
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, *"abcd"))
    operator = AIOKafkaConsumer(bootstrap_servers=bootstrap(server), group_id="g", enable_auto_commit=False)
    await operator.start()
    operator.assign([TopicPartition(topic, 0)])
    await operator.commit({TopicPartition(topic, 0): (offset, metadata)})
    await operator.stop()
    assert await broker.depth(topic, "g") == len(given)
    member = await broker.subscribe([topic], "g", "c")
    taken = await server_rig.receive(member, len(given))
    assert server_rig.bodies(taken) == given
    await member.ack(taken)
    assert await broker.depth(topic, "g") == 0


async def kept(broker: Any, topic: str) -> int:
    return int(await broker.depth(topic, "nobody"))


async def test_what_all_groups_have_acknowledged_is_deleted(server_rig: Rig) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, *(str(number) for number in range(400))))
    slow = await broker.subscribe([topic], "slow", "c")
    held = await server_rig.receive(slow, 400)
    quick = await broker.subscribe([topic], "quick", "c")
    await quick.ack(await server_rig.receive(quick, 400))
    await quick._upkeep.run_once()
    assert await kept(broker, topic) == 400
    await slow.ack(held[:150] + held[200:])
    await quick._upkeep.run_once()
    assert await kept(broker, topic) == 250
    assert (await broker.depth(topic, "slow"), await broker.depth(topic, "quick")) == (50, 0)
    await slow.close()
    heir = await broker.subscribe([topic], "slow", "heir")
    assert server_rig.bodies(await server_rig.receive(heir, 50)) == [str(number) for number in range(150, 200)]


async def test_what_listeners_heard_ten_minutes_ago_is_deleted(
    server_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_upkeep, "EVERY_S", 0.1)
    monkeypatch.setattr(kafka_upkeep, "KEPT_S", 0.5)
    broker, topic = await server_rig.open(), server_rig.topic()
    listener = await broker.subscribe([topic], None, "c")
    await broker.publish(server_rig.messages(topic, *(str(number) for number in range(300))))
    await server_rig.receive(listener, 300)
    await broker.publish(server_rig.messages(topic, "new"))
    async with asyncio.timeout(20):
        while await kept(broker, topic) == 301:
            pass
    assert server_rig.bodies(await server_rig.read(broker, topic, 1)) == ["new"]


async def test_trimming_a_topic_that_was_deleted_underneath_is_no_loss_of_the_server(
    server: Server, server_rig: Rig
) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, "before"))
    position = (await server_rig.read(broker, topic, 1))[0].position
    await server.delete_underneath(topic)
    with capture_logs() as logs:
        await broker.trim(topic, position)
    assert [entry["event"] for entry in logs] == []


async def committed(admin: Any, topic: str) -> int:
    place = TopicPartition(topic, 0)
    return int((await admin.list_consumer_group_offsets("g", partitions=[place]))[place].offset)


async def test_the_committed_offset_never_passes_what_is_not_acknowledged(server_rig: Rig, admin: Any) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    member = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, *"abcdefgh"))
    taken = await server_rig.receive(member, 8)
    await member.ack(taken[3:])
    assert await committed(admin, topic) == 0
    assert await broker.depth(topic, "g") == 3
    await member.ack(taken[:1])
    assert await committed(admin, topic) == 1
    await member.close()
    heir = await broker.subscribe([topic], "g", "heir")
    rest = await server_rig.receive(heir, 2)
    assert server_rig.bodies(rest) == ["b", "c"]
    await heir.ack(rest[1:])
    assert await committed(admin, topic) == 1
    await heir.ack(rest)
    assert await committed(admin, topic) == 8
    assert await broker.depth(topic, "g") == 0


async def test_a_message_held_for_long_replays_nothing_behind_it(server_rig: Rig, admin: Any) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    member = await broker.subscribe([topic], "g", "c")
    await broker.publish(server_rig.messages(topic, *(f"m{number}" for number in range(3000))))
    taken = await server_rig.receive(member, 3000)
    for start in range(1, 3000, 500):
        await member.ack(taken[start : start + 500])
    await member.close()
    assert await committed(admin, topic) == 0
    heir = await broker.subscribe([topic], "g", "heir")
    assert server_rig.bodies(await heir.receive(3000, 20.0)) == ["m0"]
    assert await heir.receive(3000, 1.5) == []


async def test_a_topic_of_several_partitions_is_refused(server_rig: Rig, admin: Any) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await admin.create_topics([NewTopic(topic, 3, 1)])
    for call in (broker.publish(server_rig.messages(topic, "a")), broker.subscribe([topic], "g", "c")):
        with pytest.raises(BrokerRefusedError, match=f"topic {topic} has 3 partitions"):
            await call


async def test_a_topic_for_smaller_messages_is_refused(server_rig: Rig, admin: Any) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    with pytest.raises(BrokerRefusedError, match=f"topic {topic} has max.message.bytes 1000"):
        await broker.publish(server_rig.messages(topic, "a"))


async def test_a_topic_that_others_made_well_is_taken(server_rig: Rig, admin: Any) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "8000000"})])
    await broker.publish(server_rig.messages(topic, "a"))
    assert server_rig.bodies(await server_rig.read(broker, topic, 1)) == ["a"]


async def test_a_cluster_of_one_is_said_to_be_weak(server: Server) -> None:
    broker = server.connect()
    with capture_logs() as logs:
        await asyncio.wait_for(broker.open(), 40)
    await broker.close()
    weak = [entry for entry in logs if entry["event"] == "kafka_durability_weak"]
    assert [(entry["replication"], entry["wanted"]) for entry in weak] == [(1, 3)]


@pytest.mark.parametrize(
    ("copies", "in_sync", "unclean", "weak"),
    [
        (3, "2", "false", []),
        (3, "1", "false", ["min.insync.replicas"]),
        (1, "1", "false", ["replication.factor", "min.insync.replicas"]),
        (2, "3", "false", ["min.insync.replicas"]),
        (3, "2", "true", ["unclean.leader.election.enable"]),
        (3, None, None, ["min.insync.replicas", "unclean.leader.election.enable"]),
    ],
)
def test_settings_with_which_confirmed_messages_could_be_lost(
    copies: int, in_sync: str | None, unclean: str | None, weak: list[str]
) -> None:
    settings = {"min.insync.replicas": in_sync, "unclean.leader.election.enable": unclean}
    assert [item.setting for item in judged(copies, settings) if not item.is_met] == weak


async def test_what_was_fetched_ahead_of_a_deleted_topic_is_not_read(server_rig: Rig) -> None:
    broker, topic = await server_rig.open(), server_rig.topic()
    await broker.publish(server_rig.messages(topic, "a", "b", "c"))
    (first,) = await broker.read(topic, START, 1, 40.0)

    await broker.delete_topic(topic)

    with pytest.raises(PositionTrimmedError):
        await broker.read(topic, first.position, 10, 0.0)
