"""The routes of the API. A handler reads, asks the manager, and writes; errors become problem documents above it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from aiohttp import web

from formicary import metrics
from formicary.errors import FormicaryError
from formicary.model.jobs import JobView, LogLine
from formicary.queen.api import problems, reading, wire
from formicary.queen.manager.commands import RestartRequest
from formicary.queen.manager.manager import MAX_PAGE, Manager
from formicary.queen.manager.submissions import Submitted

log = structlog.get_logger(__name__)

_DEFAULT_PAGE = 50
_NO_LINES: list[LogLine] = []
_RESTART = msgspec.json.Decoder(RestartRequest)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Routes:
    """Handlers over one manager. ``closing`` ends waits and streams when the server stops."""

    def __init__(self, manager: Manager, closing: asyncio.Event) -> None:
        self._manager = manager
        self._closing = closing

    def table(self) -> list[web.RouteDef]:
        """Returns all routes."""
        jobs = "/api/v1/jobs"
        definitions = "/api/v1/definitions"
        return [
            web.post(jobs, self.submit),
            web.post(f"{jobs}/batch", self.submit_batch),
            web.get(jobs, self.list_jobs, allow_head=False),
            web.get(jobs + "/{job_id}", self.show_job, allow_head=False),
            web.post(jobs + "/{job_id}/cancel", self._command(self._manager.cancel)),
            web.post(jobs + "/{job_id}/pause", self._command(self._manager.pause)),
            web.post(jobs + "/{job_id}/resume", self._command(self._manager.resume)),
            web.post(jobs + "/{job_id}/restart", self.restart),
            web.get(jobs + "/{job_id}/logs", self.logs, allow_head=False),
            web.get(jobs + "/{job_id}/artifacts/{task_type}/{name:.+}", self.artifact, allow_head=False),
            web.post(definitions, self.save_definition),
            web.get(definitions, self.list_definitions, allow_head=False),
            web.get(definitions + "/{job_type}", self.show_definition, allow_head=False),
            web.get(definitions + "/{job_type}/versions", self.list_versions, allow_head=False),
            web.get("/api/v1/ants", self.list_ants, allow_head=False),
            web.get("/health/live", self.live),
            web.get("/health/ready", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Accepts a job: 201, or 200 with the first one for a key seen with the same body.

        With ``wait_s`` it answers when the job has ended or the time is up; the job is kept whoever leaves meanwhile.
        """
        wait_s = _wait_s(request)
        submission = reading.with_key(reading.job_request(await reading.body(request)), request)
        submitted = await self._manager.submit(submission)
        job = await self._until_closing(submitted.job.id, wait_s) if wait_s else submitted.job
        return _json(wire.job_json(job), 201 if submitted.is_new else 200)

    async def submit_batch(self, request: web.Request) -> web.StreamResponse:
        """Accepts what is right of a batch, in one commit."""
        items = reading.batch(await reading.body(request))
        good = [item for item in items if not isinstance(item, FormicaryError)]
        results = iter(await self._manager.submit_batch(good))
        answers = [_batch_item(item if isinstance(item, FormicaryError) else next(results)) for item in items]
        return _json(wire.BatchAnswer(items=answers))

    async def list_jobs(self, request: web.Request) -> web.StreamResponse:
        """Lists jobs, newest first."""
        reading.known_query(request, "state", "job_type", "limit", "cursor")
        state, job_type = reading.job_state(request), request.query.get("job_type")
        jobs, cursor = await self._manager.jobs(state, job_type, _limit(request), request.query.get("cursor"))
        return _json(wire.Page(items=[wire.item_json(job) for job in jobs], next_cursor=cursor))

    async def show_job(self, request: web.Request) -> web.StreamResponse:
        """Shows a job; with ``wait_s``, when it has ended or the time is up."""
        job_id, wait_s = request.match_info["job_id"], _wait_s(request)
        job = await (self._until_closing(job_id, wait_s) if wait_s else self._manager.job(job_id))
        return _json(wire.job_json(job))

    async def _until_closing(self, job_id: str, wait_s: float) -> JobView:
        waiting = asyncio.ensure_future(self._manager.wait_for_end(job_id, wait_s))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({waiting, closing}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            return await self._manager.job(job_id)
        finally:
            waiting.cancel()
            closing.cancel()

    def _command(self, command: Callable[[str], Awaitable[JobView]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return _json(wire.job_json(await command(request.match_info["job_id"])), 202)

        return handle

    async def restart(self, request: web.Request) -> web.StreamResponse:
        """Asks for the next attempt of an ended job."""
        content = await reading.body(request)
        wanted = reading.decode(_RESTART, content, '{"mode": "failed"}') if content.strip() else RestartRequest()
        return _json(wire.job_json(await self._manager.restart(request.match_info["job_id"], wanted)), 202)

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Sends output as JSON Lines; with ``follow=1`` until the job ended and all of it was sent.

        What cannot be read in the middle shows as a body cut short: the last chunk of HTTP never comes.
        """
        reading.known_query(request, "task_type", "attempt", "follow", "tail", "after", "limit")
        job_id, task_type = request.match_info["job_id"], request.query.get("task_type")
        attempt = reading.integer(request, "attempt", 1, 2**31 - 1)
        is_following = reading.flag(request, "follow")
        read = self._manager.follow_log if is_following else self._manager.log_lines
        pages = await read(job_id, task_type, attempt, reading.log_extent(request))
        # Before the head leaves: where nothing can be read now, the answer is an error that says so.
        first = await anext(pages, _NO_LINES)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        async with _cut_on_error(request):
            await self._send_pages(response, first, pages)
        return response

    async def _send_pages(
        self, response: web.StreamResponse, first: list[LogLine], pages: AsyncIterator[list[LogLine]]
    ) -> None:
        lines: list[LogLine] | None = first
        while lines is not None:
            if lines:
                await response.write(wire.json_lines(lines))
            lines = None if self._closing.is_set() else await anext(pages, None)
        await response.write_eof()

    async def artifact(self, request: web.Request) -> web.StreamResponse:
        """Sends the bytes of an artifact, or to where they are; a digest that is wrong shows as a body cut short."""
        reading.known_query(request, "attempt", "redirect")
        where = request.match_info
        place = (where["job_id"], where["task_type"], where["name"], reading.integer(request, "attempt", 1, 2**31 - 1))
        if reading.flag(request, "redirect"):
            url = await self._manager.artifact_url(*place)
            if url is not None:
                return web.Response(status=307, headers={"Location": url, "Cache-Control": "no-store"})
        download = await self._manager.artifact(*place)
        chunk = await anext(download.chunks, b"")
        file_name = quote(download.ref.name.rpartition("/")[2])
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(download.ref.size_bytes),
            "Content-Disposition": f"attachment; filename*=UTF-8''{file_name}",
            "X-Content-Type-Options": "nosniff",
            "ETag": f'"{download.ref.sha256}"',
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        async with _cut_on_error(request):
            while chunk:
                await response.write(chunk)
                chunk = await anext(download.chunks, b"")
            await response.write_eof()
        return response

    async def save_definition(self, request: web.Request) -> web.StreamResponse:
        """Stores a definition: 201 a new version, 200 unchanged."""
        saved = await self._manager.save_definition(reading.text(await reading.body(request)))
        return _json(wire.definition_json(saved.record, with_source=False), 201 if saved.is_new else 200)

    async def list_definitions(self, request: web.Request) -> web.StreamResponse:
        """Lists the newest version of every job type."""
        reading.known_query(request, "limit", "cursor")
        records, cursor = await self._manager.definitions(_limit(request), request.query.get("cursor"))
        items = [wire.definition_json(record, with_source=False) for record in records]
        return _json(wire.Page(items=items, next_cursor=cursor))

    async def show_definition(self, request: web.Request) -> web.StreamResponse:
        """Shows the newest version of a job type, with its source."""
        record = await self._manager.definition(request.match_info["job_type"])
        return _json(wire.definition_json(record, with_source=True))

    async def list_versions(self, request: web.Request) -> web.StreamResponse:
        """Lists the versions of a job type, with their sources."""
        records = await self._manager.definition_versions(request.match_info["job_type"])
        return _json(wire.Page(items=[wire.definition_json(record, with_source=True) for record in records]))

    async def list_ants(self, request: web.Request) -> web.StreamResponse:
        """Lists the live ants."""
        return _json(wire.Page(items=[wire.ant_json(ant) for ant in self._manager.ants()]))

    async def live(self, request: web.Request) -> web.StreamResponse:
        """Says that the process's loop turns."""
        return _json({"status": "live"})

    async def ready(self, request: web.Request) -> web.StreamResponse:
        """Says that the database answers."""
        await self._manager.check()
        return _json({"status": "ready"})

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """Sends the metrics of this process."""
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=wire.encode(document), status=status, content_type="application/json")


@asynccontextmanager
async def _cut_on_error(request: web.Request) -> AsyncIterator[None]:
    """Closes the connection on an error: the head of the answer has left, so that nothing else can tell."""
    try:
        yield
    except ConnectionError:
        log.debug("reader_left", path=request.path)
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer cannot be completed
        log.warning("answer_cut_short", path=request.path, error=str(error))
        if request.transport is not None:
            request.transport.abort()


def _wait_s(request: web.Request) -> float:
    if not request.query:
        return 0.0
    reading.known_query(request, "wait_s")
    return reading.number(request, "wait_s", 0, reading.MAX_WAIT_S) or 0.0


def _limit(request: web.Request) -> int:
    return reading.integer(request, "limit", 1, MAX_PAGE) or _DEFAULT_PAGE


def _batch_item(result: Submitted | FormicaryError) -> wire.JobJson | wire.ProblemDocument:
    return problems.document(result) if isinstance(result, FormicaryError) else wire.item_json(result.job)
