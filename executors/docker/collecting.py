"""What a container left, brought to the attempt's folder.

Engines follow links on the way to a path, and Podman those at its end too. So no part of a path is taken for a folder
before it was looked at, and what a link of the container leads to comes along only where it lies in the working
directory: what else the container holds was not asked for.
"""

import asyncio
import posixpath
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from executors.base import Attempt
from executors.docker import manifest
from executors.docker.archives import Target, Unpacked, clear, make_link, unpack
from executors.docker.engine import Engine
from executors.docker.errors import EngineRefusedError
from executors.errors import CollectFailedError
from executors.foreign_tar import MOST_NAMES
from executors.specs import VolumeSpec

Note = Callable[[str], Awaitable[None]]

#: How many links are looked up whose target did not come with them; the rest lead nowhere.
_MOST_LOOKS = 1000
#: How many names the log tells of what was left out.
_NAMED = 10


class Collector:
    """Brings files of one container that has ended."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        working_dir: str,
        volumes: Sequence[VolumeSpec],
        attempt: Attempt,
        note: Note,
    ) -> None:
        self._engine = engine
        self._container = container
        self._root = working_dir
        self._is_root_real = False
        self._volumes = volumes
        self._folder = attempt.folder
        self._note = note
        self._brought: list[str] = []
        #: Symlinks below the working directory that are still to be looked at.
        self._links: deque[str] = deque()
        self._looks_left = _MOST_LOOKS
        self._left_out: list[str] = []

    async def bring_results(self, *, with_results: bool) -> None:
        """Brings the file of outputs, and the results if wanted."""
        targets = {manifest.OUTPUT_FILE: Target(self._folder.output_file.parent, self._folder.output_file.name)}
        if with_results:
            targets[f"{manifest.RESULT_DIR}/"] = Target(self._folder.result_dir)
        changed = await self._engine.changed(self._container, list(targets))
        if not changed:
            return
        self._folder.path()
        wanted = {posixpath.relpath(path, manifest.ROOT): targets[path] for path in changed}
        async with self._engine.receive(self._container, manifest.OUT) as received:
            done = Unpacked() if received is None else await unpack(received[1], wanted)
        await self._tell(done.astray + done.left_out)

    async def bring(self, paths: Sequence[str]) -> None:
        """Brings what paths can select, and what the links among it lead to."""
        for place in fixed_places(paths):
            await self._bring(place)
        while self._links:
            await self._follow(self._links.popleft())
        await self._tell(self._left_out)

    async def _bring(self, place: str) -> None:
        if any(_covers(brought, place) for brought in self._brought):
            return
        self._brought.append(place)
        await asyncio.to_thread(clear, self._folder.path(), place)
        await self._fetch(place)
        for mount in self._volumes_below(place) if self._engine.is_podman else ():
            await self._fetch(mount)

    async def _fetch(self, place: str) -> None:
        """Fetches what lies at a path below the working directory, unless a link is on the way there."""
        if not await self._is_plain(posixpath.dirname(place)):
            return
        path = self._path(place)
        await self._check_lasting(place, path)
        async with self._engine.receive(self._container, path) as received:
            if received is None:
                return
            found, pieces = received
            if not found.is_link:
                done = await unpack(pieces, {posixpath.basename(path): Target(self._folder.path(), place)})
                self._links.extend(done.links + done.astray)
                self._left_out.extend(done.left_out)
                return
        await self._fetch_linked(place)

    async def _fetch_linked(self, place: str) -> None:
        """Sees to a link that was asked for by its own name."""
        if place != ".":
            self._links.append(place)
        elif not self._is_root_real:
            await self._real_root()
            await self._fetch(place)

    async def _is_plain(self, place: str) -> bool:
        """Tells whether a path below the working directory is a folder, reached through folders."""
        parts = place.split("/") if place else []
        for count in range(1, len(parts) + 1):
            found = await self._engine.look(self._container, self._path("/".join(parts[:count])))
            if found is None or found.is_link or not found.is_folder:
                return False
        return True

    async def _follow(self, link: str) -> None:
        """Brings what a link leads to, where that lies in the working directory."""
        if await asyncio.to_thread(self._is_here, link) or not self._looks_left:
            return
        self._looks_left -= 1
        target = await self._led_to(link)
        if target is None:
            await asyncio.to_thread(clear, self._folder.path(), link)
            self._left_out.append(link)
            return
        text = posixpath.relpath(target, posixpath.dirname(link) or ".")
        await asyncio.to_thread(make_link, self._folder.path(), link, text)
        if not _covers(target, link):
            await self._bring(target)

    def _is_here(self, link: str) -> bool:
        """Tells whether what a link leads to was brought, too. Blocks."""
        work = self._folder.path().resolve()
        try:
            target = (work / link).resolve(strict=True).relative_to(work).as_posix()
        except (OSError, RuntimeError, ValueError):
            return False
        return any(_covers(brought, target) for brought in self._brought)

    async def _led_to(self, link: str) -> str | None:
        """Returns the path below the working directory that a link leads to in the end; None outside, or nowhere."""
        try:
            found = await self._engine.look(self._container, self._path(link))
        except EngineRefusedError:  # links in a circle
            return None
        root = await self._real_root()
        if found is None or not found.is_link or not manifest.covers(root, found.leads_to):
            return None
        return posixpath.relpath(found.leads_to, root)

    async def _real_root(self) -> str:
        """Returns the working directory's path without links."""
        if self._is_root_real:
            return self._root
        real = "/"
        for part in posixpath.normpath(self._root).strip("/").split("/"):
            real = posixpath.join(real, part)
            found = await self._engine.look(self._container, real)
            if found is not None and found.is_link:
                real = found.leads_to
        self._root, self._is_root_real = real, True
        return real

    def _path(self, place: str) -> str:
        return posixpath.normpath(posixpath.join(self._root, place))

    def _volumes_below(self, place: str) -> list[str]:
        """Returns the volumes within a folder, outer ones first: Podman leaves them out of the folder's archive."""
        path = self._path(place)
        mounts = sorted(posixpath.normpath(volume.mount_path) for volume in self._volumes)
        return [posixpath.relpath(mount, self._root) for mount in mounts if mount != path and _covers(path, mount)]

    async def _check_lasting(self, place: str, path: str) -> None:
        """Demands that what is fetched is not gone with the container."""
        for volume in self._volumes:
            if volume.empty_dir is None or volume.empty_dir.medium != "Memory":
                continue
            mount = volume.mount_path
            if manifest.covers(mount, path):
                advice = "is gone with the container; leave out medium: Memory, or copy what shall be kept"
                raise CollectFailedError(f"{place} lies in memory, in the volume at {mount}, and {advice}")
            if manifest.covers(path, mount):
                await self._note(f"the volume at {mount} was in memory: nothing of it is kept")

    async def _tell(self, left_out: list[str]) -> None:
        for name in left_out[:_NAMED]:
            await self._note(
                f"{name!r} of the container was left out: it is no file or folder, or leads out or nowhere"
            )
        if len(left_out) > _NAMED:
            least = "at least " if len(left_out) >= MOST_NAMES else ""
            await self._note(f"and {least}{len(left_out) - _NAMED} more were left out")


def fixed_places(paths: Sequence[str]) -> list[str]:
    """Returns the folders and files, without a glob in them, below which all that the paths select lies.

    None of them lies below another; ``.`` is the working directory itself. What would lie outside is left out.
    """
    places = sorted({_fixed_part(path) for path in paths})
    places = [place for place in places if place.split("/")[0] not in ("", "..")]
    return [place for place in places if not any(_covers(other, place) for other in places if other != place)]


def _covers(folder: str, path: str) -> bool:
    """Tells whether a path is a folder, or lies below it."""
    return folder in (".", path) or path.startswith(f"{folder}/")


def _fixed_part(path: str) -> str:
    fixed: list[str] = []
    for part in posixpath.normpath(path.strip()).split("/"):
        if any(character in part for character in "*?["):
            break
        fixed.append(part)
    return "/".join(fixed) or "."
