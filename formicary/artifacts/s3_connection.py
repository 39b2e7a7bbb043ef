"""A client of an S3 server: configured, retried, and with its errors translated."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

import aioboto3
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from formicary.artifacts.base import ArtifactStoreAwayError, ArtifactStoreUnavailableError
from formicary.artifacts.s3_errors import DRIVER_ERRORS, translated
from formicary.artifacts.s3_options import S3Options

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

log = structlog.get_logger(__name__)

_CONNECT_S: Final = 4.0
#: The driver's own limit; ours are shorter, but for the end of a large upload.
_READ_S: Final = 300.0
#: Requests with content that are under way at once; each holds less than 2 MiB of it.
_SENT_AT_ONCE: Final = 32
#: Further parts of files that come at once; each holds about 2 MiB.
_RECEIVED_AT_ONCE: Final = 16
#: More than there will be: whoever waited for a connection would take that for a server that is away.
_CONNECTIONS: Final = 1000
#: The driver's tries of one request, pauses of up to 1 s between them; we try on, until patience is over.
_DRIVER_TRIES: Final = 2
_FIRST_PAUSE_S: Final = 0.1
_LAST_PAUSE_S: Final = 5.0

T = TypeVar("T")


class Place(TypedDict):
    """An object, as the driver's calls name it."""

    Bucket: str
    Key: str


class Connection:
    """What all calls of one store share: clients and patience."""

    def __init__(self, options: S3Options) -> None:
        self.options = options
        #: Held by each part of a file that comes, but for the first.
        self.receiving = asyncio.Semaphore(_RECEIVED_AT_ONCE)
        self._sending = asyncio.Semaphore(_SENT_AT_ONCE)
        self._stack = AsyncExitStack()
        self._client: S3Client | None = None
        self._signer: S3Client | None = None

    async def open(self) -> None:
        """Makes the clients; asks nothing of the server."""
        if self._client is not None:
            return
        try:
            session = _session(self.options.region)
            self._client = await self._connect(session, self.options.endpoint)
            self._signer = self._client
            if self.options.presign_endpoint is not None:
                self._signer = await self._connect(session, self.options.presign_endpoint)
        except DRIVER_ERRORS as exc:
            await self.close()
            raise translated(exc, "use the AWS configuration", self.options.place) from exc

    async def close(self) -> None:
        """Closes the connections. Safe twice."""
        self._client = self._signer = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    def place(self, name: str) -> Place:
        """Returns where an object is."""
        return {"Bucket": self.options.bucket, "Key": name}

    @property
    def client(self) -> "S3Client":
        """Returns the client of an open store."""
        return _opened(self._client)

    @property
    def signer(self) -> "S3Client":
        """Returns the client whose URLs others can reach."""
        return _opened(self._signer)

    async def call(
        self,
        verb: str,
        work: Callable[["S3Client"], Awaitable[T]],
        *,
        longer_s: float = 0.0,
        patience_s: float | None = None,
    ) -> T:
        """Does ``work``, again and again while the store is away and patience lasts.

        Args:
            verb: completes "cannot …".
            work: one request, that may be sent twice.
            longer_s: how much longer than any request one try may take.
            patience_s: how long to go on trying; None is what the URL says.

        Raises:
            ArtifactError: what the last try ended with.
        """

        async def tried() -> T:
            async with asyncio.timeout(self.options.timeout_s + longer_s):
                return await work(self.client)

        return await self._retried(verb, tried, patience_s)

    async def send(
        self, verb: str, work: Callable[["S3Client"], Awaitable[T]], taken_count: Callable[[], int] = lambda: 0
    ) -> T:
        """Does ``work``, which sends content, as ``call`` does; a limited number at once, the others wait in line.

        Args:
            verb: completes "cannot …".
            work: one request, that may be sent twice.
            taken_count: how often the server took more; a try may last as long as that grows.

        Raises:
            ArtifactError: what the last try ended with.
        """

        async def tried() -> T:
            timeout_s = self.options.timeout_s
            async with self._sending, asyncio.timeout(timeout_s) as limit:
                with _extended(limit, taken_count, timeout_s):
                    return await work(self.client)

        return await self._retried(verb, tried, None)

    async def _retried(self, verb: str, work: Callable[[], Awaitable[T]], patience_s: float | None) -> T:
        for pause_s in self.pauses(patience_s):
            try:
                return await work()
            except DRIVER_ERRORS as exc:
                failure = translated(exc, verb, self.options.place)
                if pause_s is None or not isinstance(failure, ArtifactStoreAwayError):
                    raise failure from exc
            await self.rest(failure, pause_s)
        raise AssertionError("the last pause is None")

    def pauses(self, patience_s: float | None = None) -> Iterator[float | None]:
        """Yields how long to wait after each try that failed; None: not at all, patience is over."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + (self.options.patience_s if patience_s is None else patience_s)
        pause_s = _FIRST_PAUSE_S
        while clock() + pause_s < deadline:
            # Those who lost the server together do not come back together.
            yield pause_s * random.uniform(0.5, 1.0)
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)
        yield None

    async def rest(self, failure: Exception, pause_s: float) -> None:
        """Waits before the next try, and says so."""
        log.info("artifacts_retried", reason=str(failure), retry_in_s=round(pause_s, 3))
        await asyncio.sleep(pause_s)

    async def _connect(self, session: aioboto3.Session, endpoint: str | None) -> "S3Client":
        config = AioConfig(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            max_pool_connections=_CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": _DRIVER_TRIES},
            signature_version="s3v4",
            # The content is not part of the signature, which is made on the event loop: a checksum that was computed
            # in a thread goes with it. The driver's own checksums come as trailers, which not all servers know.
            s3={"addressing_style": "path", "payload_signing_enabled": False},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        made = session.client("s3", endpoint_url=endpoint, config=config)
        client: S3Client = await self._stack.enter_async_context(made)
        client.meta.events.register_last("before-call.s3", _without_expect)
        return client


def _session(region: str | None) -> aioboto3.Session:
    session = get_session()
    session.register_component("data_loader", _descriptions())
    return aioboto3.Session(region_name=region, botocore_session=session)


def _without_expect(params: dict[str, Any], **_: object) -> None:
    """Has content sent at once: a server that knows no ``100 Continue`` would be waited for in vain."""
    params["headers"].pop("Expect", None)


@functools.cache
def _descriptions() -> Any:
    """Returns the driver's descriptions of services, read once: that takes longer than all else of an opening."""
    return get_session().get_component("data_loader")


@contextmanager
def _extended(limit: asyncio.Timeout, taken_count: Callable[[], int], timeout_s: float) -> Iterator[None]:
    """Puts a limit off as long as a count grows."""
    loop, looks = asyncio.get_running_loop(), list[asyncio.TimerHandle]()

    def look(before: int) -> None:
        now = taken_count()
        if now > before and not limit.expired():
            limit.reschedule(loop.time() + timeout_s)
        looks[:] = [loop.call_later(timeout_s / 4, look, now)]

    look(0)
    try:
        yield
    finally:
        looks[0].cancel()


def _opened(client: "S3Client | None") -> "S3Client":
    if client is None:
        raise ArtifactStoreUnavailableError("the artifact store is not open")
    return client
