"""Definitions that were parsed already.

A stored version never changes, so what is known by id stays true. Which version is the newest can change at any
queen: the insert of a job checks that, and a job made from an older one is made again (see ``Submissions``).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from formicary.errors import NotFoundError
from formicary.ids import JobId
from formicary.model.definition import DefinitionRecord, JobDefinition
from formicary.model.jobs import TaskView
from formicary.model.parse import parse_definition, parse_rendered
from formicary.queen.manager.checks import printable
from formicary.queen.manager.views import untouched
from formicary.store.definitions import DefinitionStore

#: Parsed definitions kept by id, and rendered documents kept by job.
_KEPT = 256
_KEPT_RENDERED = 32
#: Sources up to this many bytes are parsed in the loop: a thread would cost more than it frees.
_SMALL_BYTES = 8 * 1024

V = TypeVar("V")


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A version with what follows from it; ``pending`` are its tasks as views."""

    record: DefinitionRecord
    definition: JobDefinition
    pending: tuple[TaskView, ...]


class DefinitionBook:
    """Finds parsed definitions by job type, version or id."""

    def __init__(self, store: DefinitionStore) -> None:
        self._store = store
        self._by_id: _Recent[Known] = _Recent(_KEPT)
        self._newest: _Recent[Known] = _Recent(_KEPT)
        self._rendered: _Recent[tuple[TaskView, ...]] = _Recent(_KEPT_RENDERED)

    async def newest(self, job_type: str) -> Known:
        """Returns the newest version that this queen knows of.

        Raises:
            NotFoundError: there is no such job type.
        """
        known = self._newest.get(job_type)
        if known is None:
            record = await self._store.newest(job_type)
            if record is None:
                raise NotFoundError(f"no job type {printable(job_type)!r}; upload its definition first")
            known = await self._learn(record)
            self.remember_newest(known)
        return known

    async def version(self, job_type: str, version: int) -> Known:
        """Returns a version of a job type.

        Raises:
            NotFoundError: there is no such version.
        """
        known = self._newest.get(job_type)
        if known is not None and known.record.version == version:
            return known
        record = await self._store.version(job_type, version)
        if record is None:
            raise NotFoundError(f"no version {version} of job type {printable(job_type)!r}")
        return await self._learn(record)

    async def by_id(self, definition_id: str) -> Known:
        """Returns a stored version by its id."""
        known = self._by_id.get(definition_id)
        if known is not None:
            return known
        record = await self._store.by_id(definition_id)
        if record is None:
            raise NotFoundError(f"no definition {definition_id}")
        return await self._learn(record)

    async def tasks_of(self, job_id: JobId, definition_id: str, rendered_source: str | None) -> tuple[TaskView, ...]:
        """Returns the tasks of a job, PENDING all, in the order of its definition or of the document made for it."""
        if rendered_source is None:
            return (await self.by_id(definition_id)).pending
        tasks = self._rendered.get(job_id)
        if tasks is None:
            definition = await _in_thread_if_large(parse_rendered, rendered_source)
            tasks = untouched(definition)
            self._rendered.put(job_id, tasks)
        return tasks

    def learn(self, record: DefinitionRecord, definition: JobDefinition) -> Known:
        """Keeps a version that was parsed already."""
        known = Known(record=record, definition=definition, pending=untouched(definition))
        self._by_id.put(record.id, known)
        return known

    def remember_newest(self, known: Known) -> None:
        """Takes ``known`` for the newest of its job type, unless a newer one is known."""
        former = self._newest.get(known.record.job_type)
        if former is None or former.record.version <= known.record.version:
            self._newest.put(known.record.job_type, known)

    def forget_newest(self, job_type: str) -> None:
        """Makes the next ``newest`` look into the database."""
        self._newest.drop(job_type)

    async def _learn(self, record: DefinitionRecord) -> Known:
        known = self._by_id.get(record.id)
        if known is not None:
            return known
        return self.learn(record, await _in_thread_if_large(parse_definition, record.source))


async def _in_thread_if_large(parse: Callable[[str, str], JobDefinition], source: str) -> JobDefinition:
    if len(source) <= _SMALL_BYTES:
        return parse(source, "definition")
    return await asyncio.to_thread(parse, source, "definition")


class _Recent(Generic[V]):
    """The values used last, by key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[str, V] = OrderedDict()

    def get(self, key: str) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: str, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)

    def drop(self, key: str) -> None:
        self._values.pop(key, None)
