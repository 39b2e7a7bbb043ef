"""Images: found, pulled with their progress in the log, and what of them matters to a container."""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executors.base import Sink, Stream
from executors.docker.engine import Engine
from executors.docker.errors import EngineRefusedError
from executors.errors import ImageError
from executors.specs import ContainerSpec, RegistrySpec, ServiceSpec

Json = Any  # a JSON value

#: The registry of a name without one, and what files of logins call it.
_HUB = "docker.io"
_HUB_LOGIN = "https://index.docker.io/v1/"
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image says about its containers."""

    user: str
    environment: Mapping[str, str]


class Images:
    """The images of one engine. Attempts that want the same image at the same time pull it once."""

    def __init__(self, engine: Engine, logins: Path, progress_s: float) -> None:
        """Prepares for use.

        Args:
            engine: where the images are.
            logins: Docker's ``config.json``, read at each pull.
            progress_s: how often the log tells how far a pull is.
        """
        self._engine = engine
        self._logins = logins
        self._progress_s = progress_s
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def ensure(self, spec: ContainerSpec | ServiceSpec, sink: Sink) -> ImageFacts:
        """Returns what an image says, once the engine has it.

        Raises:
            ImageError: it cannot be had; says why, and what may help.
        """
        name = spec.image
        found = None if spec.image_pull_policy == "Always" else await self._find(name)
        if found is None and spec.image_pull_policy == "Never":
            raise ImageError(f"image {name} is not there, and its pull policy is Never; pull it, or use IfNotPresent")
        if found is None:
            found = await self._pull_once(spec, sink)
        config = found.get("Config") or {}
        variables = dict(each.partition("=")[::2] for each in config.get("Env") or ())
        return ImageFacts(user=config.get("User") or "", environment=variables)

    async def _find(self, name: str) -> Json | None:
        try:
            return await self._engine.image(name)
        except EngineRefusedError as exc:
            raise ImageError(f"image {name}: {exc.reason}") from exc

    async def _pull_once(self, spec: ContainerSpec | ServiceSpec, sink: Sink) -> Json:
        """Pulls an image; those who come while it is being pulled wait for that, and look again."""
        name = spec.image
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        was_busy = lock.locked()
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                found = await self._find(name) if was_busy else None
                if found is None:
                    await self._pull(spec, sink)
                    found = await self._find(name)
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)
        if found is None:
            raise ImageError(f"image {name} was pulled, and is not there all the same")
        return found

    async def _pull(self, spec: ContainerSpec | ServiceSpec, sink: Sink) -> None:
        name, began_s = spec.image, time.monotonic()
        auth = self._auth(name, spec.registry)
        await _say(sink, f"pulling image {name}")
        layers: dict[str, Json] = {}
        told_s = began_s

        async def tell(progress: Json) -> None:
            nonlocal told_s
            if progress.get("id") and "progressDetail" in progress:
                layers[progress["id"]] = progress
            if time.monotonic() - told_s >= self._progress_s:
                told_s = time.monotonic()
                await _say(sink, f"pulling image {name}: {_progress(layers)}")

        try:
            await self._engine.pull(name, auth, tell)
        except EngineRefusedError as exc:
            raise ImageError(f"image {name} cannot be pulled: {exc.reason}{_advice(exc.reason, auth)}") from exc
        await _say(sink, f"pulled image {name} in {time.monotonic() - began_s:.1f} s")

    def _auth(self, name: str, given: RegistrySpec | None) -> Mapping[str, str] | None:
        server = _registry_of(name)
        if given is not None:
            server = given.server or server
            return {"username": given.username, "password": given.password, "serveraddress": server}
        return _login(self._logins, server)


def _registry_of(name: str) -> str:
    """Returns the registry in an image's name: the first part, where it looks like a host."""
    first, slash, _ = name.partition("/")
    return first if slash and (first == "localhost" or "." in first or ":" in first) else _HUB


def _login(file: Path, server: str) -> Mapping[str, str] | None:
    """Returns the login that ``docker login`` left for a registry; helpers for credentials are not asked."""
    try:
        logins = json.loads(file.read_text()).get("auths") or {}
        names = (server, f"https://{server}", _HUB_LOGIN) if server == _HUB else (server, f"https://{server}")
        entry: Mapping[str, str] = next((logins[name] for name in names if name in logins), {})
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except (OSError, ValueError, AttributeError):
        return None
    return {"username": user, "password": password, "serveraddress": server} if user else None


def _progress(layers: Mapping[str, Json]) -> str:
    details = [layer.get("progressDetail") or {} for layer in layers.values()]
    done = sum(layer.get("status") in ("Pull complete", "Already exists") for layer in layers.values())
    current = sum(detail.get("current") or 0 for detail in details) / _MEGABYTE
    total = sum(detail.get("total") or 0 for detail in details) / _MEGABYTE
    return f"{done} of {len(layers)} layers, {current:.1f} of {total:.1f} MB under way"


def _advice(reason: str, auth: Mapping[str, str] | None) -> str:
    words = reason.lower()
    if not any(word in words for word in ("unauthorized", "denied", "authentication", "credentials", "forbidden")):
        return ""
    if auth is None:
        return "; check its name, or give container.registry {username, password}"
    return f"; the registry refuses user {auth['username']}: check container.registry"


async def _say(sink: Sink, text: str) -> None:
    await sink.write(Stream.SYSTEM, text.encode() + b"\n")
