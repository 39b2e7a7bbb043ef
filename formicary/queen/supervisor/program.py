"""A definition made ready to run: parsed, planned, its templates compiled, constant orders encoded once."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from executors.specs import WebsocketSpec
from formicary.errors import DataError
from formicary.events.orders import Fetch, Order
from formicary.model.definition import DefinitionRecord, JobDefinition, TaskDefinition
from formicary.model.parse import parse_definition, parse_rendered
from formicary.model.parse_keys import CHORE_METHODS, FILE_METHODS
from formicary.queen.registry import Requirement
from formicary.states.graph import Plan
from formicary.store.rows import JobRecord
from formicary.template.task import CompiledTask, RenderedTask, compile_task

#: Compiled definitions kept in memory, and how many tasks they may have together (one is kept whatever its size).
CACHE_SIZE = 256
CACHE_TASKS = 200_000
#: Sources of more characters are compiled in a thread: it takes some 300 µs a task, and leases must be renewed.
LARGE_SOURCE = 100_000
#: What keeps two attempts of a task apart in one place only: all attempts of such a task run where the first one did.
PLACED_METHODS = frozenset({"KUBERNETES"})
#: The largest order that a dispatch carries.
MAX_ORDER_BYTES = 512 * 1024

_encoder = msgspec.msgpack.Encoder()

FetchRecord = Callable[[str], Awaitable[DefinitionRecord | None]]


class TaskProgram:
    """One task of a program. ``constant_order`` is the encoded order where no template and no artifact enters it.

    ``dependency_numbers`` are the tasks whose artifacts belong to its inputs, ``fetch_numbers`` those of them whose
    files it can be given: none where its method has no place for files.
    """

    __slots__ = (
        "compiled",
        "constant_order",
        "definition",
        "dependency_numbers",
        "fetch_numbers",
        "has_except",
        "has_memo",
        "is_chore",
        "is_placed",
        "requirement",
    )

    def __init__(self, job: JobDefinition, task: TaskDefinition, numbers: Mapping[str, int]) -> None:
        self.definition = task
        self.compiled: CompiledTask = compile_task(task, job)
        self.requirement = _requirement(task)
        self.dependency_numbers = tuple(numbers[name] for name in task.dependencies)
        self.fetch_numbers = self.dependency_numbers if task.method in FILE_METHODS else ()
        self.has_except = task.except_ is not None
        self.has_memo = task.memoize is not None
        self.is_chore = task.method in CHORE_METHODS
        self.is_placed = task.method in PLACED_METHODS
        is_constant = self.compiled.is_constant and not self.fetch_numbers
        self.constant_order = encode_order(job.job_type, task, self.compiled.constant, ()) if is_constant else None


class Program:
    """A definition version, shared by all its jobs. With a ``refusal`` its jobs can only fail, for that reason."""

    def __init__(self, definition: JobDefinition, refusal: str | None = None) -> None:
        self.refusal = refusal
        self.definition = definition
        self.plan = Plan.compile(definition)
        self.tasks = [TaskProgram(definition, task, self.plan.numbers) for task in definition.tasks]

    @classmethod
    def failing(cls, job_type: str, refusal: str) -> "Program":
        """Returns the program of a job that cannot be run."""
        return cls(JobDefinition(job_type=job_type, tasks=()), refusal)


def _requirement(task: TaskDefinition) -> Requirement:
    worker = None
    if isinstance(task.spec, WebsocketSpec):
        worker = (task.spec.worker_method, tuple(sorted(task.spec.worker_tags)))
    return Requirement(task.method, tuple(sorted(task.tags)), worker)


def encode_order(
    job_type: str, task: TaskDefinition, rendered: RenderedTask, fetches: tuple[Fetch, ...]
) -> msgspec.Raw:
    """Returns the encoded order for a task, given what was rendered of it.

    Raises:
        DataError: the spec exceeds what a dispatch may carry, or holds a value that cannot be sent.
    """
    order = Order(
        job_type=job_type,
        task_type=task.task_type,
        method=task.method,
        spec=rendered.spec,
        timeout_s=task.timeout_s,
        artifacts=rendered.artifacts,
        fetches=fetches,
        cache=rendered.cache,
    )
    try:
        encoded = _encoder.encode(order)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(task.task_type, f"the rendered task holds a value that cannot be sent: {error}") from error
    if len(encoded) > MAX_ORDER_BYTES:
        raise DataError(task.task_type, f"the rendered task takes {len(encoded)} bytes; at most {MAX_ORDER_BYTES} fit")
    return msgspec.Raw(encoded)


class Programs:
    """Compiles programs and keeps the newest used; dynamic ones belong to one job and are not kept."""

    def __init__(self, fetch_record: FetchRecord) -> None:
        self._fetch_record = fetch_record
        self._cache: OrderedDict[str, Program] = OrderedDict()

    def cached(self, record: JobRecord) -> Program | None:
        """Returns the program of a job where it is at hand."""
        if record.rendered_source is not None:
            return None
        program = self._cache.get(record.definition_id)
        if program is not None:
            self._cache.move_to_end(record.definition_id)
        return program

    async def get(self, record: JobRecord) -> Program:
        """Returns the program of a job, loading and compiling its definition where needed.

        Raises:
            DefinitionError: the stored source is not valid (written by a newer version).
            DataError: a task of it cannot be sent to an ant.
        """
        if record.rendered_source is not None:
            return await _compiled(parse_rendered, record.rendered_source)
        program = self.cached(record)
        if program is None:
            stored = await self._fetch_record(record.definition_id)
            assert stored is not None, f"jobs reference definition {record.definition_id}"
            program = await _compiled(parse_definition, stored.source)
            self._keep(record.definition_id, program)
        return program

    def _keep(self, definition_id: str, program: Program) -> None:
        cache = self._cache
        cache[definition_id] = program
        while len(cache) > 1 and (len(cache) > CACHE_SIZE or _task_count(cache.values()) > CACHE_TASKS):
            cache.popitem(last=False)


def _task_count(programs: Iterable[Program]) -> int:
    return sum(program.plan.size for program in programs)


async def _compiled(parse: Callable[[str], JobDefinition], source: str) -> Program:
    if len(source) > LARGE_SOURCE:
        return await asyncio.to_thread(lambda: Program(parse(source)))
    return Program(parse(source))
