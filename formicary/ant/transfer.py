"""Artifacts of one attempt: fetched before its start, stored after its end, several at a time.

What an attempt stored and then does not report belongs to nothing, and the queen's sweep deletes it.
"""

import functools
from pathlib import Path
from typing import Final

from executors.base import Outcome, Reason
from formicary.ant.assignments import Assignment, Key
from formicary.ant.errors import TransferError
from formicary.ant.folders import AttemptFolder
from formicary.ant.globs import check_name, select_files
from formicary.artifacts.base import ArtifactError, ArtifactMissingError, ArtifactStore
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
_REFERENCE_BYTES: Final = 120


class Transfer:
    """Moves files between folders of attempts and the artifact store."""

    def __init__(self, store: ArtifactStore) -> None:
        self._blobs = Blobs(store)

    async def fetch(self, assignment: Assignment, folder: AttemptFolder) -> None:
        """Puts the artifacts of earlier tasks into the working directory, in the order listed; later ones win.

        Raises:
            TransferError: names the artifact that could not be had.
        """
        try:
            work = folder.path()
        except OSError as exc:
            raise TransferError("of earlier tasks", f"the working directory cannot be made: {exc}") from exc
        for fetch in assignment.order.fetches:
            await each(fetch.artifacts, functools.partial(self._fetch_one, work, fetch))

    async def _fetch_one(self, work: Path, fetch: Fetch, artifact: ArtifactRef) -> None:
        target = work / check_name(artifact.name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            await self._blobs.fetch(artifact.sha256, target)
        except ArtifactMissingError as exc:
            message = f"of task {fetch.task_type} is not in the store any more; restart the job from that task"
            raise TransferError(artifact.name, message) from exc
        except (ArtifactError, OSError) as exc:
            raise TransferError(artifact.name, f"of task {fetch.task_type} cannot be fetched: {exc}") from exc

    async def store(self, key: Key, files: dict[str, Path]) -> tuple[ArtifactRef, ...]:
        """Stores files; returns them in the order given.

        Raises:
            TransferError: names a file that could not be stored.
        """
        holder = Holder(*key)
        stored: dict[str, ArtifactRef] = {}

        async def store_one(name: str) -> None:
            stored[name] = await self._store_one(holder, name, files[name])

        await each(files, store_one)
        return tuple(stored[name] for name in files)

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


def select(policy: ArtifactsPolicy, folder: AttemptFolder) -> tuple[dict[str, Path], list[str]]:
    """Returns what to store, by name, and the patterns that selected nothing. Blocks.

    Raises:
        TransferError: see ``select_files``; or two files have one name, or there are too many for one result.
    """
    try:
        files, unmatched = select_files(folder.path(), policy.paths, policy.exclude) if policy.paths else ({}, [])
        results, _ = select_files(folder.result_dir, ("**",), ())
    except OSError as exc:
        raise TransferError(str(exc.filename), f"cannot be looked at: {exc.strerror}") from exc
    for name, path in results.items():
        if RESULT_PREFIX + name in files:
            raise TransferError(RESULT_PREFIX + name, "exists in the working directory and in $FORMICARY_RESULT_DIR")
        files[check_name(RESULT_PREFIX + name)] = path
    if sum(len(name.encode()) + _REFERENCE_BYTES for name in files) > REFERENCES_LIMIT_BYTES:
        raise TransferError(f"{len(files)} files", "are too many for one result; pack them into an archive")
    return files, unmatched
