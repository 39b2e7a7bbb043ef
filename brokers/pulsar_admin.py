"""Pulsar's admin interface (HTTP), for what its client library cannot do: positions, trimming, backlogs, deleting."""

import asyncio
import json
import ssl
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from brokers.errors import BrokerRefusedError, BrokerUnavailableError, words_of
from brokers.handshake import tls_fault_of_url

#: The subscription that nobody consumes: it keeps a topic's messages until they are trimmed.
KEEPER: Final = "formicary-keeper"
#: Longest silence within a request, in seconds: a server that is starting takes some and never answers them.
_TIMEOUT_S: Final = 6.0
#: What the server answers while another request changes the same subscription, and how that is waited out.
_BUSY: Final = 412
_RACES: Final = 40
_PAUSE_S: Final = 0.05
_NOT_FOUND: Final = 404

Place = tuple[int, int]
"""A ledger and an entry in it."""


class Admin:
    """The few calls that this backend needs."""

    def __init__(self, url: str, namespace: str, token: str, trust: ssl.SSLContext) -> None:
        self._url = url.rstrip("/")
        self._namespace = namespace
        self._token = token
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Checks that the server answers, takes the token and has the namespace."""
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
            # Not in total: a thousand new topics wait for a free connection.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT_S, sock_read=_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=16, ssl=self._trust),
        )
        # What a role may see of a namespace differs. One that is not there is waited for: a server makes its first
        # ones a while after it has begun to answer.
        try:
            await self._ask("GET", f"namespaces/{self._namespace}/permissions", accept=(403,))
        except BrokerUnavailableError as exc:
            if fault := await tls_fault_of_url(self._url):
                raise BrokerUnavailableError(self._url, f"option admin: {fault}") from exc
            raise

    async def close(self) -> None:
        """Disconnects."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def make_keeper(self, topic: str) -> None:
        """Makes the topic and its keeper, at the oldest message; nothing happens where they exist."""
        earliest = {"ledgerId": -1, "entryId": -1, "partitionIndex": -1}
        path = self._path(topic, f"subscription/{KEEPER}")
        for _ in range(_RACES):
            status, text = await self._request("PUT", path, earliest)
            if status != _BUSY:
                break
            await asyncio.sleep(_PAUSE_S)  # another process makes it in this moment
        self._check("PUT", path, status, text, accept=(409,))

    async def last_place(self, topic: str) -> Place | None:
        """Returns the place of the last message; None where there never was one."""
        found = await self._ask("GET", self._path(topic, "lastMessageId"), accept=(404,))
        if found is None or found["entryId"] < 0:
            return None
        return found["ledgerId"], found["entryId"]

    async def trimmed_up_to(self, topic: str) -> Place | None:
        """Returns the place of the last message that the keeper let go of; None where there is no keeper."""
        reached, _ = await self.extent(topic)
        return reached

    async def extent(self, topic: str) -> tuple[Place | None, Place]:
        """Returns the place up to which the keeper let go, None where there is no keeper, and that of the log's end."""
        found = await self._ask("GET", self._path(topic, "internalStats"), accept=(404,)) or {}
        cursor = found.get("cursors", {}).get(KEEPER)
        reached = None if cursor is None else _place(cursor["markDeletePosition"])
        return reached, max(_place(found.get("lastConfirmedEntry", "-1:-1")), reached or (-1, -1))

    async def trim(self, topic: str, place: Place) -> None:
        """Lets the keeper go of everything before ``place``, if that is in the log."""
        reached, end = await self.extent(topic)
        if reached is None or place <= reached or place > end:
            return
        body = {"ledgerId": place[0], "entryId": place[1], "partitionIndex": -1, "isExcluded": False}
        await self._ask("POST", self._path(topic, f"subscription/{KEEPER}/resetcursor"), body, accept=(404, 412))

    async def expire(self, topic: str, age_s: float) -> bool:
        """Lets the keeper go of everything older than ``age_s``; says whether there is one."""
        path = self._path(topic, f"subscription/{KEEPER}/expireMessages/{max(1, int(age_s))}")
        status, text = await self._request("POST", path, None)
        self._check("POST", path, status, text, accept=(404, 409, 412))
        return status != _NOT_FOUND

    async def backlog(self, topic: str, group: str) -> int:
        """Returns what a group has yet to acknowledge; of an unknown group, what the topic holds."""
        found = await self._ask("GET", self._path(topic, "stats?getPreciseBacklog=true"), accept=(404,))
        groups = (found or {}).get("subscriptions", {})
        facts = groups.get(group) or groups.get(KEEPER) or {"msgBacklog": 0}
        return int(facts["msgBacklog"])

    async def topics(self) -> list[str]:
        """Returns the topics of the namespace, without its name."""
        found = await self._ask("GET", f"persistent/{self._namespace}", accept=(404,))
        return [name.rpartition("/")[2] for name in found or []]

    async def delete(self, topic: str) -> None:
        """Deletes a topic with its subscriptions."""
        await self._ask("DELETE", self._path(topic, "") + "?force=true", accept=(404,))

    async def persistence(self) -> dict[str, Any]:
        """Returns the namespace's persistence policies; empty where it has none or the role is not told."""
        return await self._ask("GET", f"namespaces/{self._namespace}/persistence", accept=(401, 403, 404)) or {}

    async def configuration(self) -> dict[str, str]:
        """Returns the server's configuration, which only a superuser is told."""
        return await self._ask("GET", "brokers/configuration/runtime", accept=(401, 403, 404)) or {}

    def _path(self, topic: str, what: str) -> str:
        return f"persistent/{self._namespace}/{quote(topic, safe='')}/{what}".rstrip("/")

    async def _ask(self, method: str, path: str, body: Any = None, accept: tuple[int, ...] = ()) -> Any:
        """Returns the answer; None for an empty one and for a status in ``accept``."""
        status, text = await self._request(method, path, body)
        self._check(method, path, status, text, accept)
        return json.loads(text) if text and status not in accept else None

    def _check(self, method: str, path: str, status: int, text: str, accept: tuple[int, ...]) -> None:
        if status in accept or status < 400:
            return
        words = "" if text.startswith("<") else text[:200]
        reason = f"{method} {path}: {status} {words}".rstrip()
        raise (
            BrokerRefusedError(self._url, reason) if status in {401, 403} else BrokerUnavailableError(self._url, reason)
        )

    async def _request(self, method: str, path: str, body: Any) -> tuple[int, str]:
        if self._session is None:
            raise BrokerUnavailableError(self._url, "not connected")
        try:
            async with self._session.request(method, f"{self._url}/admin/v2/{path}", json=body) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise BrokerUnavailableError(self._url, words_of(exc)) from exc


def _place(text: str) -> Place:
    ledger, _, entry = text.partition(":")
    return int(ledger), int(entry)
