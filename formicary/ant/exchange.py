"""Files of an attempt that go by URLs of the artifact store, past the ant: for whoever works elsewhere.

What somebody else stores is known by the digest that it was announced with, and lies where contents with that digest
lie. It becomes an artifact only when the store says, after the attempt's end, that just this content is there.
"""

from collections.abc import Callable
from typing import Final

from executors.base import Input, Upload
from executors.errors import CollectFailedError
from formicary.ant.errors import TransferError
from formicary.ant.globs import check_name
from formicary.artifacts.base import ArtifactError, ArtifactMissingError, Stored
from formicary.artifacts.blobs import Blobs, Offer
from formicary.artifacts.parallel import each
from formicary.events.orders import Fetch, Order
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef

#: How much longer than the attempt may last its URLs are good, in seconds.
MARGIN_S: Final = 60.0


class Exchange:
    """Gives out URLs for one attempt, and knows what was announced for them.

    Args:
        blobs: the contents.
        holder: the attempt.
        order: what it has to do.
        check: raises ``TransferError`` where a result cannot name so many artifacts.
    """

    def __init__(self, blobs: Blobs, holder: Holder, order: Order, check: Callable[[list[str]], None]) -> None:
        self._blobs = blobs
        self._holder = holder
        self._order = order
        self._check = check
        self._life_s = order.timeout_s + MARGIN_S
        self._inputs: dict[str, Input] = {}
        self._offers: dict[str, tuple[Offer, ArtifactRef]] = {}

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Returns the artifacts of earlier tasks; of one name the last."""
        return tuple(self._inputs[name] for name in sorted(self._inputs))

    async def prepare(self) -> None:
        """Signs the URLs of the inputs.

        Raises:
            TransferError: names the artifact that cannot be had.
        """
        last = {ref.name: (fetch, ref) for fetch in self._order.fetches for ref in fetch.artifacts}

        async def sign(name: str) -> None:
            self._inputs[name] = await signed(self._blobs, *last[name], self._life_s)

        await each(last, sign)

    async def offer(self, name: str, sha256: str, size_bytes: int, *, is_executable: bool) -> Upload:
        """Says where a content belongs that the attempt leaves; a later one of the same name takes its place.

        Raises:
            CollectFailedError: it cannot be taken.
        """
        try:
            self._check([*self._offers.keys() - {name}, check_name(name)])
            offer = await self._blobs.offer(Stored(sha256, size_bytes), self._holder, self._life_s)
        except (TransferError, ArtifactError) as exc:
            raise CollectFailedError(f"artifact {name!r} cannot be taken: {exc}") from exc
        if offer is None:
            raise CollectFailedError(f"artifact {name!r} cannot be taken: the artifact store is a folder, without URLs")
        ref = ArtifactRef(name=name, sha256=sha256, size_bytes=size_bytes, is_executable=is_executable)
        self._offers[name] = (offer, ref)
        return Upload(offer.put.url, offer.put.headers)

    async def taken(self) -> tuple[ArtifactRef, ...]:
        """Returns what was announced, by name; all of it is in the store.

        Raises:
            TransferError: names what is not.
        """
        await each(self._offers.values(), self._prove)
        return tuple(ref for _, (_, ref) in sorted(self._offers.items()))

    async def _prove(self, announced: tuple[Offer, ArtifactRef]) -> None:
        offer, ref = announced
        try:
            await self._blobs.accept(offer)
        except ArtifactMissingError as exc:
            raise TransferError(ref.name, "was announced, but its content was not stored") from exc
        except ArtifactError as exc:
            raise TransferError(ref.name, f"cannot be taken: {exc}") from exc


async def signed(blobs: Blobs, fetch: Fetch, ref: ArtifactRef, life_s: float) -> Input:
    """Returns an artifact of an earlier task with its URL.

    Raises:
        TransferError: it cannot be had.
    """
    try:
        url = await blobs.presign(ref.sha256, life_s)
    except ArtifactMissingError as exc:
        message = f"of task {fetch.task_type} is not in the store any more; restart the job from that task"
        raise TransferError(ref.name, message) from exc
    except ArtifactError as exc:
        raise TransferError(ref.name, f"of task {fetch.task_type} cannot be given out: {exc}") from exc
    return Input(
        name=check_name(ref.name),
        task_type=fetch.task_type,
        sha256=ref.sha256,
        size_bytes=ref.size_bytes,
        is_executable=ref.is_executable,
        folder=ref.folder,
        url=url,
    )
