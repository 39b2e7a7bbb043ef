"""A server that is there and cannot write: what it refuses did not happen, and is asked for again."""

import pytest

from formicary.errors import UnavailableError
from formicary.store.database import Database
from formicary.store.errors import NotCommittedError
from formicary.store.journal import Journal
from formicary.store.rows import JournalBatch, ShardMark

#: SQLSTATEs of a full disk or memory, a statement ended from outside, an error of the disk, a server that is a standby.
CODES = ("53100", "53200", "57014", "58030", "25006")


async def refuse_writing(database: Database, code: str) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE 'No space left on device' USING ERRCODE = '{code}'; END $$; "
            "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON leases EXECUTE FUNCTION refuse()"
        )


@pytest.mark.parametrize("code", CODES)
async def test_a_statement_that_the_server_cannot_carry_out_may_be_tried_again(database: Database, code: str) -> None:
    await refuse_writing(database, code)
    with pytest.raises(UnavailableError, match="cannot carry out a statement: No space left on device"):
        await database.fetch("UPDATE leases SET epoch = epoch + 1")


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("code", CODES)
async def test_a_commit_without_room_did_not_happen_and_the_next_one_goes_on(database: Database, code: str) -> None:
    journal, batch = Journal(database, "q@1"), JournalBatch(shards=[ShardMark(3, 1, b"here")])
    await refuse_writing(database, code)
    for _ in range(2):
        with pytest.raises(NotCommittedError, match="the database cannot write: No space left on device"):
            await journal.commit(batch)
    await database.fetch("DROP TRIGGER full_disk ON leases")
    await journal.commit(batch)
    await journal.close()
    rows = await database.fetch("SELECT results_position FROM leases WHERE shard = 3")
    assert rows[0]["results_position"] == b"here"
