"""What groups have committed of a topic, and deleting what all of them have done."""

from aiokafka import errors as kafka
from aiokafka.admin import RecordsToDelete

from brokers.kafka_ledger import Ledger
from brokers.kafka_link import Link, partition


async def committed(link: Link, topic: str, group: str) -> Ledger:
    """Returns what a group has committed of the log that a topic is now."""
    log_id = await link.log_id(topic)
    return await commit_of(link, topic, group, log_id) or Ledger(0, log_id=log_id)


async def commit_of(link: Link, topic: str, group: str, log_id: str) -> Ledger | None:
    """Returns what a group has committed of a log: nothing done where that was of another; None if nothing at all."""
    place = partition(topic)
    found = (await link.admin.list_consumer_group_offsets(group, partitions=[place])).get(place)
    if found is None or found.offset < 0:
        return None
    ledger = Ledger(found.offset, found.metadata or "")
    if ledger.log_id not in ("", log_id):  # it names none where another program committed, such as an operator's
        return Ledger(0, log_id=log_id)
    ledger.log_id = log_id
    return ledger


async def let_go(link: Link, topic: str, log_id: str, before: int) -> int:
    """Deletes the records before an offset of a log, but for what some group has yet to do; returns up to where.

    Every group counts that has committed anything of the topic, as members do when they begin.
    """
    for group, *_ in await link.admin.list_consumer_groups():
        ledger = await commit_of(link, topic, group, log_id)
        before = before if ledger is None else min(before, ledger.low)
    if before > 0 and (await link.log_ids([topic])).get(topic) == log_id:
        try:
            await link.admin.delete_records({partition(topic): RecordsToDelete(before_offset=before)})
        except kafka.OffsetOutOfRangeError:
            return 0  # the log never reached it: it was made anew in this moment
    return before
