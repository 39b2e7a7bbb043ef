"""``formicary colony``: which colonies use an artifact store, and which one a database is."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from formicary.cli import options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from formicary.artifacts.colonies import Marked

app = typer.Typer(rich_markup_mode=None, help="Look at colonies that share a store.", no_args_is_help=True)

#: A mark that is younger is not removed without being forced: its colony seems to live.
RECENT: Final = timedelta(days=2)

ColonyArgument = Annotated[str, typer.Argument(help="Id, as `formicary colony list` shows it.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Also where it was seen lately, or nobody knows when.")]


@app.callback()
def _group() -> None:
    """Look at colonies that share a store."""


@app.command("list")
def list_colonies(
    artifacts_url: options.ArtifactsOption = None, output: options.OutputOption = options.Output.TEXT
) -> int:
    """List the colonies that use the artifact store; where there are several, nothing in it is swept."""
    from formicary.cli.output import print_json, print_table

    found = _with_store(artifacts_url, None)
    if output is options.Output.JSON:
        print_json([{"colony_id": each.colony_id, "host": each.mark.host, "seen_at": _seen(each)} for each in found])
    else:
        rows = [(each.colony_id, _seen(each) or "-", each.mark.host or "-") for each in found]
        print_table(("COLONY", "LAST SEEN", "BY"), rows)
    return 0


@app.command("forget")
def forget(colony_id: ColonyArgument, artifacts_url: options.ArtifactsOption = None, force: ForceOption = False) -> int:
    """Say that a colony is gone: what only it kept in the artifact store is deleted by another one's next sweep."""
    from formicary.errors import ConflictError, NotFoundError

    def check(found: "list[Marked]") -> str:
        known = next((each for each in found if each.colony_id == colony_id), None)
        if known is None:
            raise NotFoundError(f"no colony {colony_id!r} uses this store; formicary colony list shows those that do")
        seen_at = known.mark.seen_at
        if not force and (seen_at is None or datetime.now(UTC) - seen_at < RECENT):
            when = "who knows when" if seen_at is None else f"at {_seen(known)} by {known.mark.host}"
            raise ConflictError(
                f"colony {colony_id} was last seen {when}: make sure that none of its queens runs or will run again on "
                "this store, then say --force; what only it refers to is deleted"
            )
        return colony_id

    _with_store(artifacts_url, check)
    typer.echo(f"forgotten {colony_id}")
    return 0


@app.command("new-id")
def new_id(database_url: options.DatabaseOption = None, home: options.HomeOption = None) -> int:
    """Make the copy of a database a colony of its own, before its first queen is started."""
    from formicary import log
    from formicary.cli.serving import run_loop
    from formicary.cli.unknown import load

    log.configure("error", None)
    loaded = load(database_url=database_url, home=home)
    url = loaded.database_url
    former, colony_id = run_loop(_renew_embedded(loaded.home) if url is None else _renew(url))
    typer.echo(f"colony {former} is {colony_id} now" + (f", under {loaded.home}" if url is None else ""))
    return 0


async def _renew_embedded(home: "Path") -> tuple[str, str]:
    """Starts the server of a home for the time that it takes."""
    from formicary.errors import ConflictError, HomeHeldError, InvalidInputError
    from formicary.home import HomeLock
    from formicary.store.embedded import EmbeddedPostgres

    if not (home / "postgres" / "data").is_dir():
        raise InvalidInputError(f"there is no database under {home}; give --home, or --database-url for another one")
    server = EmbeddedPostgres(home / "postgres")
    try:
        with HomeLock(home, "new-id"):
            try:
                return await _renew(await server.start())
            finally:
                await server.stop()
    except HomeHeldError as error:
        raise ConflictError(f"{error}: stop that first; its database gets a new id only while no queen runs") from error


async def _renew(url: str) -> tuple[str, str]:
    from formicary.store.database import Database
    from formicary.store.identity import renew_colony_id

    database = Database(url, min_size=1, max_size=1)
    try:
        await database.open()
        return await renew_colony_id(database)
    finally:
        await database.close()


def _with_store(artifacts_url: str | None, choose: "Callable[[list[Marked]], str] | None") -> "list[Marked]":
    """Returns the marks in the store; removes the one that is chosen, if any is to be."""
    from formicary import log
    from formicary.artifacts.base import ArtifactError
    from formicary.artifacts.colonies import marked, remove_mark
    from formicary.artifacts.registry import make_store
    from formicary.cli.serving import run_loop
    from formicary.cli.unknown import load
    from formicary.errors import UnavailableError

    log.configure("error", None)
    store = make_store(load(artifacts_url=artifacts_url).artifacts_url)

    async def look() -> "list[Marked]":
        try:
            await store.open()
            found = await marked(store)
            if choose is not None:
                await remove_mark(store, choose(found))
            return found
        finally:
            await store.close()

    try:
        return run_loop(look())
    except ArtifactError as error:
        raise UnavailableError(str(error)) from error


def _seen(marked: "Marked") -> str | None:
    from formicary.clock import time_text

    return None if marked.mark.seen_at is None else time_text(marked.mark.seen_at)
