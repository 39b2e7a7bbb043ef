"""Artifacts of one attempt: fetched before its start, stored after its end, several at a time.

What an attempt stored and then does not report belongs to nothing, and the queen's sweep deletes it.
"""

import asyncio
import functools
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from executors.base import Outcome, Reason
from formicary.ant.assignments import Assignment, Key
from formicary.ant.caches import in_thread
from formicary.ant.errors import TransferError
from formicary.ant.exchange import Exchange
from formicary.ant.folders import AttemptFolder
from formicary.ant.globs import check_name, compile_pattern, is_real, plain_name, select_files
from formicary.ant.shortcut import Shortcut
from formicary.artifacts.archive import ArchiveError, pack, unpack
from formicary.artifacts.base import ArtifactError, ArtifactMissingError, ArtifactStore, Stored
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.parallel import each
from formicary.events.orders import Fetch
from formicary.model.definition import ArtifactsPolicy, ArtifactWhen
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef

#: What the names of the result folder's files begin with.
RESULT_PREFIX: Final = "result/"
#: Bytes that the references of one attempt's artifacts may take in its result.
REFERENCES_LIMIT_BYTES: Final = 512 * 1024
_REFERENCE_BYTES: Final = 144
#: Permissions of fetched files: other users whom a script becomes may read them. Strangers are kept out by the folder.
_PLAIN: Final = 0o644
_EXECUTABLE: Final = 0o755
#: What the name of a folder's archive ends with.
ARCHIVE_SUFFIX: Final = ".tar.zst"
_NOTHING_STORED: Final = MappingProxyType[Path, Stored]({})


class Transfer:
    """Moves files between folders of attempts and the artifact store."""

    def __init__(self, store: ArtifactStore) -> None:
        self._blobs = Blobs(store)

    async def fetch(self, assignment: Assignment, folder: AttemptFolder) -> None:
        """Puts the artifacts of earlier tasks into the working directory, in the order listed; later ones win.

        Not those for which the attempt's shortcut has URLs.

        Raises:
            TransferError: names the artifact that could not be had.
        """
        try:
            work = folder.path()
        except OSError as exc:
            raise TransferError("of earlier tasks", f"the working directory cannot be made: {exc}") from exc
        others = frozenset[str]() if assignment.shortcut is None else await assignment.shortcut.prepare()
        for fetch in assignment.order.fetches:
            wanted = [artifact for artifact in fetch.artifacts if artifact.folder or artifact.name not in others]
            await each(wanted, functools.partial(self.fetch_one, work, fetch))

    def exchange(self, assignment: Assignment) -> Exchange:
        """Returns what gives out URLs instead."""
        return Exchange(self._blobs, Holder(*assignment.key), assignment.order, _check_count)

    def shortcut(self, assignment: Assignment, folder: AttemptFolder) -> Shortcut | None:
        """Returns what lets big files go past the ant; None where the store cannot tell what strangers put there."""
        if not self._blobs.store.checks_uploads:
            return None
        holder, least_bytes = Holder(*assignment.key), assignment.executor.shortcut_bytes
        return Shortcut(self._blobs, holder, assignment.order, folder, least_bytes, self.fetch_one)

    async def fetch_one(self, work: Path, fetch: Fetch, artifact: ArtifactRef) -> None:
        """Puts one artifact into a working directory; raises ``TransferError`` where it cannot be had."""
        target = work / check_name(artifact.name)
        try:
            if artifact.folder is not None:
                return await self._fetch_folder(work, check_name(artifact.folder), artifact.sha256)
            target.parent.mkdir(parents=True, exist_ok=True)
            await self._blobs.fetch(artifact.sha256, target)
            target.chmod(_EXECUTABLE if artifact.is_executable else _PLAIN)
        except ArtifactMissingError as exc:
            message = f"of task {fetch.task_type} is not in the store any more; restart the job from that task"
            raise TransferError(artifact.name, message) from exc
        except (ArtifactError, OSError) as exc:
            raise TransferError(artifact.name, f"of task {fetch.task_type} cannot be fetched: {exc}") from exc

    async def _fetch_folder(self, work: Path, name: str, sha256: str) -> None:
        """Unpacks an archive in the place where its folder was."""
        target = work / name
        archive = work.parent / f"fetched-{secrets.token_hex(4)}"
        try:
            await self._blobs.fetch(sha256, archive)
            target.mkdir(parents=True, exist_ok=True)
            if not is_real(work, name):
                raise TransferError(name, "would be unpacked through a symlink of another artifact")
            await in_thread(lambda stop: unpack(archive, target, stop, replaces=True))
        finally:
            await asyncio.to_thread(archive.unlink, missing_ok=True)

    async def store(
        self, key: Key, selection: "Selection", work: Path, stored_before: Mapping[Path, Stored] = _NOTHING_STORED
    ) -> tuple[ArtifactRef, ...]:
        """Stores files, and folders as archives; returns them by name.

        Of the files in ``stored_before``, which are no part of a folder that is selected, there are stand-ins here.

        Raises:
            TransferError: names what could not be stored.
        """
        holder = Holder(*key)
        stored: dict[str, ArtifactRef] = {}

        async def store_file(name: str) -> None:
            path = selection.files[name]
            if (content := stored_before.get(path)) is None:
                ref = await self._store_one(holder, name, path)
            else:
                ref = ArtifactRef(name=name, sha256=content.sha256, size_bytes=content.size_bytes)
            stored[name] = msgspec.structs.replace(ref, is_executable=name in selection.executables)

        async def store_folder(name: str) -> None:
            stored[name] = await self._store_folder(holder, name, selection, work)

        await each(selection.files, store_file)
        await each(selection.folders, store_folder)
        return tuple(ref for _, ref in sorted(stored.items()))

    async def _store_folder(self, holder: Holder, name: str, selection: "Selection", work: Path) -> ArtifactRef:
        archive = work.parent / f"packed-{secrets.token_hex(4)}"
        unwanted = [compile_pattern(pattern) for pattern in selection.exclude]

        def is_wanted(below: str) -> bool:
            return not any(pattern.fullmatch(f"{name}/{below}") for pattern in unwanted)

        try:
            packed = await in_thread(lambda stop: pack(work / name, is_wanted, archive, stop, keeps_times=False))
            if packed.left_out:
                raise TransferError(repr(f"{name}/{packed.left_out[0]}"), "is a symlink out of the folder that is kept")
            ref = await self._store_one(holder, name + ARCHIVE_SUFFIX, archive)
        except ArchiveError as exc:
            raise TransferError(name, f"cannot be packed: {exc}") from exc
        finally:
            await asyncio.to_thread(archive.unlink, missing_ok=True)
        return msgspec.structs.replace(ref, folder=name)

    async def _store_one(self, holder: Holder, name: str, path: Path) -> ArtifactRef:
        try:
            sha256, size_bytes = await self._blobs.add(path, holder)
        except (ArtifactError, OSError) as exc:
            raise TransferError(name, f"cannot be stored: {exc}") from exc
        return ArtifactRef(name=name, sha256=sha256, size_bytes=size_bytes)


def is_wanted(policy: ArtifactsPolicy, outcome: Outcome) -> bool:
    """Tells whether this end of an attempt keeps its artifacts."""
    if policy.when is ArtifactWhen.ALWAYS:
        return True
    if policy.when is ArtifactWhen.ON_SUCCESS:
        return outcome.is_success
    return not outcome.is_success and outcome.reason is not Reason.CANCELLED


class Selection(NamedTuple):
    """What to store: files by name, names of whole folders less ``exclude``; and the patterns that selected nothing.

    ``executables`` are the names of the files that their owner can execute.
    """

    files: dict[str, Path]
    executables: frozenset[str]
    folders: tuple[str, ...]
    exclude: tuple[str, ...]
    unmatched: list[str]


def select(policy: ArtifactsPolicy, folder: AttemptFolder) -> Selection:
    """Returns what to store. A path without wildcards that names a folder means that folder as one archive. Blocks.

    Raises:
        TransferError: see ``select_files``; or two files have one name, or there are too many for one result.
    """
    try:
        folders = [name for pattern in policy.paths if (name := _named_folder(folder.path(), pattern)) is not None]
        paths = [pattern for pattern in policy.paths if _named_folder(folder.path(), pattern) is None]
        files, unmatched = select_files(folder.path(), paths, policy.exclude) if paths else ({}, [])
        results, _ = select_files(folder.result_dir, ("**",), ())
    except OSError as exc:
        raise TransferError(str(exc.filename), f"cannot be looked at: {exc.strerror}") from exc
    for name, path in results.items():
        if RESULT_PREFIX + name in files:
            raise TransferError(RESULT_PREFIX + name, "exists in the working directory and in $FORMICARY_RESULT_DIR")
        files[check_name(RESULT_PREFIX + name)] = path
    for name in folders:
        if check_name(name + ARCHIVE_SUFFIX) in files:
            raise TransferError(name + ARCHIVE_SUFFIX, f"is kept as a file and as the archive of {name}")
    _check_count(list(files))
    return Selection(files, _executables(files), tuple(dict.fromkeys(folders)), policy.exclude, unmatched)


def _check_count(names: list[str]) -> None:
    if sum(len(name.encode()) + _REFERENCE_BYTES for name in names) > REFERENCES_LIMIT_BYTES:
        raise TransferError(f"{len(names)} files", "are too many for one result; pack them into an archive")


def _executables(files: dict[str, Path]) -> frozenset[str]:
    try:
        return frozenset(name for name, path in files.items() if path.stat().st_mode & stat.S_IXUSR)
    except OSError as exc:
        raise TransferError(str(exc.filename), f"cannot be looked at: {exc.strerror}") from exc


def _named_folder(work: Path, pattern: str) -> str | None:
    """Returns the name of the folder that a path without wildcards means, None where it means files."""
    name = plain_name(pattern)
    return name if name is not None and (work / name).is_dir() and is_real(work, name) else None
