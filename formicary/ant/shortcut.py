"""Big files of one attempt that may go between the artifact store and where it runs, past the ant.

Whoever sends a file there is not believed: its URL takes no content but the one with the announced digest, the store is
asked whether it has that, and also who names a digest that is stored already has to send the content. What was accepted
has a stand-in in the attempt's folder, as large and empty, so that artifacts are selected as ever.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from executors.base import Input, Upload
from executors.errors import InputMissingError
from formicary.ant.errors import TransferError
from formicary.ant.exchange import MARGIN_S, signed
from formicary.ant.folders import AttemptFolder
from formicary.ant.globs import check_name, compile_pattern, is_real, plain_name
from formicary.artifacts.base import ArtifactError, Stored
from formicary.artifacts.blobs import Blobs, Offer
from formicary.artifacts.parallel import each
from formicary.events.orders import Fetch, Order
from formicary.model.definition import ArtifactsPolicy
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef

#: The most that one request can store.
_LARGEST_BYTES: Final = 5 * 1024**3
#: How long URLs for uploads are good, in seconds: all of an attempt's are signed at once and used one by one.
_UPLOAD_LIFE_S: Final = 3600.0


class Shortcut:
    """URLs for one attempt's files, and what came by them.

    Args:
        blobs: the contents.
        holder: the attempt.
        order: what it has to do.
        folder: where its other files are.
        least_bytes: smaller files are left to others.
        fetch_one: puts an artifact of an earlier task into a folder, or raises ``TransferError``.
    """

    def __init__(
        self,
        blobs: Blobs,
        holder: Holder,
        order: Order,
        folder: AttemptFolder,
        least_bytes: int,
        fetch_one: Callable[[Path, Fetch, ArtifactRef], Awaitable[None]],
    ) -> None:
        self._blobs = blobs
        self._holder = holder
        self._order = order
        self._folder = folder
        self.least_bytes = least_bytes
        self._fetch_one = fetch_one
        self._big = _big_files(order.fetches, least_bytes)
        self._inputs: dict[str, Input] = {}
        self._is_wanted = _chooser(order.artifacts)
        self._offers: dict[str, tuple[Offer, bool]] = {}
        self._accepted: dict[str, tuple[Stored, bool]] = {}

    @property
    def most_bytes(self) -> int:
        """Returns the size of the largest file that can be stored by a URL."""
        return _LARGEST_BYTES

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Returns the big files of earlier tasks."""
        return tuple(self._inputs[name] for name in sorted(self._inputs))

    async def prepare(self) -> frozenset[str]:
        """Signs the URLs of the inputs; returns their names.

        Raises:
            TransferError: names the artifact that cannot be had.
        """

        async def sign(name: str) -> None:
            self._inputs[name] = await signed(self._blobs, *self._big[name], self._order.timeout_s + MARGIN_S)

        await each(self._big, sign)
        return frozenset(self._inputs)

    async def bring(self) -> None:
        """Puts the inputs into the attempt's folder after all.

        Raises:
            InputMissingError: names the one that cannot be had.
        """
        work = self._folder.path()
        try:
            await each(self._big.values(), lambda found: self._fetch_one(work, *found))
        except TransferError as exc:
            raise InputMissingError(str(exc)) from exc

    def is_wanted(self, name: str) -> bool:
        """Tells whether a file of the working directory would be an artifact of its own."""
        return self._is_wanted(name)

    async def offer(self, name: str, sha256: str, size_bytes: int, *, is_executable: bool) -> Upload | None:
        """Returns where a file belongs that the attempt leaves; None: it cannot go that way."""
        if not 0 < size_bytes <= _LARGEST_BYTES:
            return None
        try:
            offer = await self._blobs.offer(Stored(sha256, size_bytes), self._holder, _UPLOAD_LIFE_S)
        except ArtifactError:
            return None
        if offer is None:
            return None
        self._offers[name] = (offer, is_executable)
        return Upload(offer.put.url, offer.put.headers)

    async def accept(self, name: str) -> bool:
        """Tells whether the store has what was offered last under this name, and no other content."""
        offer, is_executable = self._offers.pop(name)
        try:
            await self._blobs.accept(offer)
        except ArtifactError:
            return False
        self._accepted[name] = (offer.content, is_executable)
        return True

    def place(self) -> dict[Path, Stored]:
        """Puts stand-ins into the folder for what was accepted; returns the contents by their paths. Blocks.

        Raises:
            TransferError: something else is in the place of one.
        """
        if not self._accepted:
            return {}
        work = self._folder.path()
        placed: dict[Path, Stored] = {}
        for name, (content, is_executable) in self._accepted.items():
            _stand_in(work, name, content.size_bytes, is_executable)
            placed[work.resolve() / name] = content
        return placed


def _big_files(fetches: tuple[Fetch, ...], least_bytes: int) -> dict[str, tuple[Fetch, ArtifactRef]]:
    """Returns the big files by name, of one name the last; none below a folder that another artifact brings."""
    last = {ref.name: (fetch, ref) for fetch in fetches for ref in fetch.artifacts}
    folders = tuple(f"{ref.folder}/" for fetch in fetches for ref in fetch.artifacts if ref.folder is not None)
    return {
        name: (fetch, ref)
        for name, (fetch, ref) in last.items()
        if ref.folder is None and ref.size_bytes >= least_bytes and not name.startswith(folders)
    }


def _chooser(policy: ArtifactsPolicy) -> Callable[[str], bool]:
    """Returns what tells whether a name is one that patterns select as a file, not as a part of a folder."""
    try:
        wanted = [compile_pattern(pattern) for pattern in policy.paths]
        unwanted = [compile_pattern(pattern) for pattern in policy.exclude]
    except TransferError:  # said where files are selected
        return lambda _: False
    folders = tuple(f"{name}/" for pattern in policy.paths if (name := plain_name(pattern)) is not None)

    def is_wanted(name: str) -> bool:
        if name.startswith(folders) or not any(regex.fullmatch(name) for regex in wanted):
            return False
        return not any(regex.fullmatch(name) for regex in unwanted)

    return is_wanted


def _stand_in(work: Path, name: str, size_bytes: int, is_executable: bool) -> None:
    path = work / check_name(name)
    if not is_real(work, str(path.parent.relative_to(work))):
        raise TransferError(name, "was sent to the artifact store, though a symlink is on the way to it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            file.truncate(size_bytes)
        path.chmod(0o700 if is_executable else 0o600)
    except OSError as exc:
        raise TransferError(name, f"was sent to the artifact store, but has no place here: {exc.strerror}") from exc
