"""The way to a real server, over which answers and statements can be lost."""

import asyncio
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit


class Road:
    """Copies bytes between clients and the server of ``url``.

    ``is_cut_before`` and ``is_cut_after`` act on the next commit. With ``falls_at``, the server is lost as that
    statement is sent to it, counted from 1, and ``refuses`` so many connections before it is back.
    """

    def __init__(self, url: str) -> None:
        self._server_socket = f"{parse_qs(urlsplit(url).query)['host'][0]}/.s.PGSQL.5432"
        self.url = ""
        self._path = urlsplit(url).path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_cut_before = False
        self.is_cut_after = False
        self.withheld = b""
        self.falls_at = 0
        self.refuses = 0
        self.statement_count = 0

    async def open(self) -> None:
        """Lets clients in; ``url`` is the database at the end of this road."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"postgresql://formicary@127.0.0.1:{port}{self._path}?sslmode=disable"

    async def close(self) -> None:
        """Cuts all connections and takes no more."""
        assert self._server is not None
        self._server.close()
        self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def has_fallen(self) -> bool:
        """Says whether the server was lost, and is back."""
        return 0 < self.falls_at <= self.statement_count and not self.refuses

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses and self.statement_count >= self.falls_at:
            self.refuses -= 1
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(self._server_socket)
        self._writers |= {writer, far_writer}
        for source, sink, is_request in ((reader, far_writer, True), (far_reader, writer, False)):
            task = asyncio.create_task(self._copy(source, sink, is_request=is_request))
            self._tasks.add(task)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_request: bool) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 20):
                if self._is_lost(data) if is_request else self._is_kept_back():
                    return self._cut()
                sink.write(data)
                await sink.drain()
        sink.close()
        return None

    def _is_lost(self, request: bytes) -> bool:
        # Messages of the protocol: "Parse" (P) or "Query" (Q) begins a statement, "Bind" (B) carries its values.
        if request[:1] in {b"P", b"Q"}:
            self.statement_count += 1
            return self.statement_count == self.falls_at
        if request[:1] == b"B" and self.is_cut_before:
            self.is_cut_before, self.withheld = False, request
            return True
        return False

    def _is_kept_back(self) -> bool:
        was_cut_after, self.is_cut_after = self.is_cut_after, False
        return was_cut_after

    def _cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()
