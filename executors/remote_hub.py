"""Who is connected, and who gets which task: first come, first served, to the least busy worker."""

import asyncio
from collections.abc import Callable

import structlog

from executors.base import Offer
from executors.remote_messages import Task
from executors.remote_worker import Inbox, RemoteWorker

log = structlog.get_logger(__name__)


class Ticket:
    """A task that waits for a worker, and what becomes of it."""

    def __init__(self, task: Task, tags: tuple[str, ...]) -> None:
        self.task = task
        self.tags = tags
        self.inbox: Inbox = Inbox()
        #: Who has it; None while it waits.
        self.worker: RemoteWorker | None = None
        #: Since when, by the loop's clock, nobody is there who would ever take it.
        self.lonely_since: float | None = None
        self.changed = asyncio.Event()


class WorkerHub:
    """The connected workers and the tasks that wait for them."""

    def __init__(self) -> None:
        self._workers: dict[RemoteWorker, None] = {}
        self._waiting: dict[Ticket, None] = {}
        self._offers: tuple[Offer, ...] = ()
        #: Told all that is offered, whenever it changes.
        self.on_offers: Callable[[tuple[Offer, ...]], None] | None = None

    def join(self, worker: RemoteWorker) -> None:
        """Gives work to a worker from now on."""
        self._workers[worker] = None
        log.info("worker_joined", worker=worker.name, methods=worker.offer.methods, tags=worker.offer.tags)
        self.settle()

    def leave(self, worker: RemoteWorker) -> None:
        """Forgets a worker."""
        if self._workers.pop(worker, self) is None:
            log.info("worker_left", worker=worker.name)
            self.settle()

    def ask(self, ticket: Ticket) -> None:
        """Has a task wait for a worker; it may have one at once."""
        self._waiting[ticket] = None
        self.settle()

    def withdraw(self, ticket: Ticket) -> None:
        """Has a task wait no more; nothing happens to one that a worker has."""
        self._waiting.pop(ticket, None)

    def settle(self) -> None:
        """Gives out what can be given, and tells of changes."""
        for ticket in list(self._waiting):
            self._place(ticket)
        offers = tuple(sorted({worker.offer for worker in self._workers if not worker.is_draining}, key=_order))
        if offers != self._offers:
            self._offers = offers
            if self.on_offers is not None:
                self.on_offers(offers)

    def explain(self, ticket: Ticket) -> str:
        """Says why a task waits."""
        wanted = _wanted(ticket)
        fit = self._fitting(ticket)
        if not fit:
            names = ", ".join(sorted({worker.name for worker in self._workers})[:5])
            return f"no connected worker takes {wanted}" + (f"; connected: {names}" if names else "")
        slots = sum(worker.slots for worker in fit)
        busy = sum(worker.busy for worker in fit)
        which = f"the only worker for {wanted} is" if len(fit) == 1 else f"all {len(fit)} workers for {wanted} are"
        return f"{which} full ({busy} of {slots} slots)"

    def _place(self, ticket: Ticket) -> None:
        fit = self._fitting(ticket)
        free = [worker for worker in fit if worker.has_room]
        if free:
            ticket.worker = min(free, key=lambda worker: worker.busy / worker.slots)
            del self._waiting[ticket]
            ticket.worker.begin(ticket.task, ticket.inbox)
        is_lonely = not fit
        if is_lonely == (ticket.lonely_since is None) or free:
            ticket.lonely_since = asyncio.get_running_loop().time() if is_lonely else None
            ticket.changed.set()

    def _fitting(self, ticket: Ticket) -> list[RemoteWorker]:
        return [worker for worker in self._workers if worker.takes(ticket.task.method, ticket.tags)]


def _wanted(ticket: Ticket) -> str:
    return ticket.task.method + (f" with tags [{', '.join(ticket.tags)}]" if ticket.tags else "")


def _order(offer: Offer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (offer.methods, offer.tags)
