"""The engine: the few calls that attempts need, with a limit in time, and with errors that say what failed.

The client's own ways are not used where ``aiodocker`` reads an archive into memory, waits for ever, allows 100
connections, or asks once more what is known already.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream as Attached
from yarl import URL

from executors.docker.connection import Connection
from executors.docker.errors import EngineLostError, EngineRefusedError

Json = Any  # a JSON value
Auth = Mapping[str, str]

#: How long an engine that may not be there is waited for, in seconds.
CONNECT_LIMIT_S = 5.0
#: How much of the output of a command inside a container is kept.
OUTPUT_BYTES = 64 * 1024
#: After this time the end of a container is asked for anew, in seconds: the answer may have gone astray.
_WAIT_AGAIN_S = 60.0


#: Bits of a file's kind, as Go has them.
_FOLDER_BIT = 1 << 31
_LINK_BIT = 1 << 27


class Found(NamedTuple):
    """What lies at a path of a container."""

    is_folder: bool
    is_link: bool
    #: Where a link leads in the end, as an absolute path without links.
    leads_to: str


class Engine:
    """One engine. ``url`` is ``unix:///path`` or ``tcp://host:port``."""

    def __init__(self, url: str, silence_s: float = 30.0) -> None:
        """Prepares for use.

        Args:
            url: where the engine is.
            silence_s: how long it may give no sign of life while it is waited for.
        """
        self.url = url
        #: Known after the first ping.
        self.is_podman = False
        self._connection = Connection(url, silence_s)
        self._calling = self._connection.calling

    async def close(self) -> None:
        """Closes all connections; safe twice and before use."""
        await self._connection.close()

    def _container(self, docker: Docker, container: str) -> DockerContainer:
        return DockerContainer(docker, id=container)

    async def ping(self) -> None:
        """Returns when the engine has answered; Podman takes seconds to say its version."""
        async with (
            self._calling("asking whether it is there", CONNECT_LIMIT_S) as docker,
            await docker._do_query("_ping", "GET", versioned_api=False) as response,
        ):
            self.is_podman = "Libpod-API-Version" in response.headers

    async def image(self, name: str) -> Json | None:
        """Returns what is known of an image, or None where the engine does not have it."""
        try:
            async with self._calling(f"looking for image {name}") as docker:
                return await docker.images.inspect(name)
        except EngineRefusedError as exc:
            if exc.status == 404:
                return None
            raise

    async def pull(self, name: str, auth: Auth | None, on_progress: Callable[[Json], Awaitable[None]]) -> None:
        """Pulls an image; ``on_progress`` is told what the engine says meanwhile.

        Raises:
            EngineRefusedError: the registry or the engine would not; also in the middle.
        """
        tag = "" if _has_tag(name) else "latest"
        params = {"fromImage": name, **({"tag": tag} if tag else {})}
        headers = (
            {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(dict(auth)).encode()).decode()} if auth else {}
        )
        async with (
            self._calling(f"pulling image {name}", None) as docker,
            docker._query("images/create", "POST", params=params, headers=headers, timeout=None) as response,
        ):
            async for line in response.content:
                progress = json.loads(line)
                if "error" in progress:
                    raise EngineRefusedError(f"pulling image {name}", 0, str(progress["error"]))
                await on_progress(progress)

    async def create(self, config: Json, name: str) -> str:
        """Makes a container and returns its id."""
        async with self._calling(f"making a container of {config['Image']}") as docker:
            return (await docker.containers.create(config, name=name)).id

    async def start(self, container: str) -> None:
        """Starts a container."""
        async with self._calling("starting a container") as docker:
            await self._container(docker, container).start()

    async def wait(self, container: str) -> int:
        """Returns a container's exit code, once it does not run."""
        answer: Json = None
        while answer is None:
            async with self._calling("waiting for a container", None) as docker:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WAIT_AGAIN_S):
                        answer = await self._container(docker, container).wait(timeout=None)
        if not answer:
            raise EngineLostError(self.url, "waiting for a container", "it hung up")
        return int(answer["StatusCode"])

    async def inspect(self, container: str) -> Json:
        """Returns all about a container."""
        async with self._calling("looking at a container") as docker:
            return await self._container(docker, container).show()

    async def kill(self, container: str, signal: str) -> None:
        """Sends a signal to the first process of a container; nothing happens where it does not run."""
        try:
            async with self._calling("signalling a container") as docker:
                await self._container(docker, container).kill(signal=signal)
        except EngineRefusedError as exc:
            if exc.status not in (404, 409) and "is not running" not in exc.reason:
                raise

    async def remove(self, container: str) -> None:
        """Kills and removes a container with its unnamed volumes; nothing happens where it is gone."""
        try:
            async with self._calling("removing a container") as docker:
                await self._container(docker, container).delete(force=True, v=True)
        except EngineRefusedError as exc:
            if exc.status == 409 and "already in progress" in exc.reason:
                return
            if exc.status != 404:
                raise

    async def execute(
        self, container: str, command: Sequence[str], limit_s: float, keep_bytes: int = OUTPUT_BYTES
    ) -> tuple[int, bytes]:
        """Runs a command inside a container; returns its exit code, and the first ``keep_bytes`` of its output."""
        output = bytearray()
        async with self._calling("running a command in a container", limit_s) as docker:
            running = await self._container(docker, container).exec(command)
            async with running.start() as attached:
                while (message := await attached.read_out()) is not None:
                    output += message.data[: keep_bytes - len(output)]
            code = (await running.inspect())["ExitCode"]
        return int(code or 0), bytes(output)

    async def attach(self, container: str) -> Attached:
        """Opens the output of a container that has not started yet, or runs: frames of either stream, from now on."""

        async def setup() -> tuple[URL, bytes | None, bool]:
            url = URL(f"containers/{container}/attach").with_query(stream=1, stdout=1, stderr=1)
            return url, None, False

        async with self._calling("opening the output of a container") as docker:
            attached = Attached(docker, setup)
            await attached._init()
        return attached

    async def tail(self, container: str, lines: int) -> bytes:
        """Returns the last lines that a container wrote, both streams together."""
        async with self._calling("reading the log of a container") as docker:
            container_ = self._container(docker, container)
            log: list[str] = await container_.log(stdout=True, stderr=True, tail=lines)
        return "".join(log).encode()

    async def changed(self, container: str, beginnings: Sequence[str]) -> set[str]:
        """Returns those of the beginnings that paths have in which a container's own layer differs from its image.

        A container may have changed millions of files, so the engine's list of them is searched as it comes.
        """
        marks = {beginning: f'"{beginning}'.encode() for beginning in beginnings}
        overlap_bytes = max(map(len, marks.values()))
        found: set[str] = set()
        rest = b""
        async with (
            self._calling("looking for a container's files", None) as docker,
            docker._query(f"containers/{container}/changes", timeout=None) as response,
        ):
            async for piece in response.content.iter_any():
                rest += piece
                found.update(beginning for beginning, mark in marks.items() if mark in rest)
                rest = rest[-overlap_bytes:]
        return found

    async def send(self, container: str, archive: AsyncIterable[bytes]) -> None:
        """Unpacks a tar archive at the root of a container's files."""
        params = {"path": "/"}
        headers = {"Content-Type": "application/x-tar"}
        async with (
            self._calling("sending files to a container", None) as docker,
            docker._query(
                _archive_of(container), "PUT", params=params, data=archive, headers=headers, timeout=None
            ) as response,
        ):
            await response.read()

    async def look(self, container: str, path: str) -> Found | None:
        """Returns what lies at a path, or None where nothing does; links on the way to it are followed."""
        async with self._calling("looking at a container's files") as docker:
            with suppress(ValueError):  # of a refusal without a body, which the client reads as JSON all the same
                async with docker._query(_archive_of(container), "HEAD", params={"path": path}) as response:
                    return _found(response)
        async with self.receive(container, path) as received:
            return received[0] if received else None

    @asynccontextmanager
    async def receive(self, container: str, path: str) -> AsyncIterator[tuple[Found, AsyncIterator[bytes]] | None]:
        """Yields what lies at a path, and the pieces of a tar archive of it, or None where nothing does."""
        async with self._calling("fetching files of a container", None) as docker:
            try:
                response = await docker._do_query(_archive_of(container), "GET", params={"path": path}, timeout=None)
            except DockerError as exc:
                if exc.status != 404:
                    raise
                yield None
                return
            async with response:
                yield _found(response), response.content.iter_any()

    async def create_network(self, config: Json) -> str:
        """Makes a network and returns its id."""
        async with self._calling("making a network") as docker:
            network = await docker.networks.create(config)
        return str(network.id)

    async def connect(self, network: str, container: str) -> None:
        """Puts a container into one more network."""
        async with self._calling(f"joining network {network}") as docker:
            await docker._query_json(f"networks/{network}/connect", "POST", data={"Container": container})

    async def remove_network(self, network: str) -> None:
        """Removes a network that no container is in; nothing happens where it is gone."""
        try:
            async with self._calling("removing a network") as docker, docker._query(f"networks/{network}", "DELETE"):
                pass
        except EngineRefusedError as exc:
            if exc.status != 404:
                raise

    async def labelled(self, *labels: str) -> tuple[list[Json], float]:
        """Returns the containers, in any state, that carry all labels, and what time it is for the engine."""
        params = {"all": "1", "filters": json.dumps({"label": list(labels)})}
        async with (
            self._calling("listing containers") as docker,
            docker._query("containers/json", params=params) as response,
        ):
            now_s = parsedate_to_datetime(response.headers["Date"]).timestamp()
            containers: list[Json] = await response.json()
            return containers, now_s

    async def labelled_networks(self, *labels: str) -> list[Json]:
        """Returns the networks that carry all labels."""
        params = {"filters": json.dumps({"label": list(labels)})}
        async with self._calling("listing networks") as docker:
            networks: list[Json] = await docker._query_json("networks", params=params)
        return networks


def _has_tag(name: str) -> bool:
    last = name.rpartition("/")[2]
    return ":" in last or "@" in last


def _archive_of(container: str) -> str:
    return f"containers/{container}/archive"


def _found(response: aiohttp.ClientResponse) -> Found:
    facts = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))
    return Found(bool(facts["mode"] & _FOLDER_BIT), bool(facts["mode"] & _LINK_BIT), facts["linkTarget"])
