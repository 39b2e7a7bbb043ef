"""Files into and out of a running container, as tar streams over exec: that works wherever the image has a tar.

Each transfer can be repeated, and is, when the connection breaks.
"""

import asyncio
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Final, TypeVar

from executors.errors import CollectFailedError, StartFailedError
from executors.excerpts import last_lines, without_first_line
from executors.kubernetes.archive import empty, pack, roots, unpack
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from executors.kubernetes.exec import CHUNK_BYTES, STDERR_BYTES, ExecSession, running
from executors.kubernetes.manifest import MAIN
from executors.kubernetes.volumes import HOME_PATH

T = TypeVar("T")

#: Times that a transfer is tried.
_TRIES: Final = 6
_MIN_PAUSE_S: Final = 0.2
#: How much is shown of what a command complained of, if its last line is no longer.
_SHOWN_CHARACTERS: Final = 500
#: GNU tar's code for a file that changed while it was read.
_TAR_CHANGED: Final = 1
_TAR_WORDS: Final = "the image needs sh, tar and head, and the ant's account the right to exec into pods"
_INTERRUPT = f"trap '' TERM; kill -USR1 $(cat {HOME_PATH}/pid)"
#: A call whose answer was lost may still be at it when the next one comes, and nothing may change under a script that
#: has begun. So each call that gives inputs takes the file of the one before away, and has one of its own.
OWN: Final = f"""
own={HOME_PATH}/giver.$$
rm -f {HOME_PATH}/giver.*
"""
#: What a call ends with that was overtaken so.
_OVERTAKEN: Final = 6
_PUT: Final = f"""{OWN}
[ ! -e {HOME_PATH}/in ] || exec head -c "$1" >/dev/null
: >"$own" || exit
head -c "$1" | tar -xf - -C "$2" || exit
mv "$own" {HOME_PATH}/in || exit {_OVERTAKEN}
"""
#: What there is nothing to pack ends with.
_NOTHING: Final = 4
#: Packs those of some paths that exist; the second argument says how many come before them, to be left out.
_GET: Final = f"""
cd "$1" || exit 3
less=$2 some=
shift 2
for path; do
  if [ "$less" -gt 0 ]; then
    set -- "$@" "--exclude=./$path"
    less=$((less - 1))
  elif [ -e "./$path" ]; then
    set -- "$@" "./$path"
    some=1
  fi
  shift
done
[ "$some" ] || exit {_NOTHING}
exec tar -cf - "$@"
"""


class Transfer:
    """Moves files of one pod's main container."""

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster = cluster
        self._pod = pod

    async def put(self, folder: Path, work_path: str) -> None:
        """Puts what a folder holds into the container's working directory, and lets the script begin.

        Raises:
            StartFailedError: it could not be put there.
        """
        try:
            with tempfile.TemporaryFile(dir=folder.parent) as file:
                size = await asyncio.to_thread(pack, folder, file)
                code, words = await tried(lambda: self._send(file, size, work_path))
        except (OSError, tarfile.TarError) as exc:
            raise StartFailedError(f"the task's inputs cannot be packed on the ant: {exc}") from exc
        if code != 0:
            raise StartFailedError(f"the task's inputs cannot be put into the container ({words}); {_TAR_WORDS}")

    async def get(
        self, path: str, names: Sequence[str], folder: Path, *, without: Sequence[str] = (), is_emptied: bool = False
    ) -> list[str]:
        """Brings files and folders below ``path`` into a folder, ``without`` some; what does not exist is left out.

        Returns the names of what was there and was left out: what is neither file nor folder nor leads to one of them.

        Raises:
            CollectFailedError: they could not be had.
        """
        try:
            with tempfile.TemporaryFile(dir=folder.parent) as file:
                code = await self._fetch(file, path, names, without)
                if is_emptied:
                    await asyncio.to_thread(empty, folder)
                return [] if code == _NOTHING else await asyncio.to_thread(unpack, file, folder)
        except (ApiRefusedError, ApiUnreachableError) as exc:
            raise CollectFailedError(f"what the task left in its container cannot be had: {exc}") from exc
        except (OSError, tarfile.TarError) as exc:  # a file that cannot be written is told when it is closed, too
            raise CollectFailedError(f"what the task left cannot be unpacked on the ant: {exc}") from exc

    async def get_selected(
        self, work_path: str, patterns: Sequence[str], folder: Path, without: Sequence[str] = ()
    ) -> list[str]:
        """Brings what globs can select in the working directory; the folder then holds that and nothing else.

        Files in ``without`` may be left out; their names must mean themselves as patterns of tar.

        Raises:
            CollectFailedError: it could not be had.
        """
        return await self.get(work_path, roots(tuple(patterns)), folder, without=without, is_emptied=True)

    async def interrupt(self) -> bool:
        """Has the script told to stop; tells whether that was possible.

        What tells it may be ended by it: the wrapper passes the signal on to everything in the container.
        """
        try:
            async with running(self._cluster, self._pod, MAIN, ["sh", "-c", _INTERRUPT]) as session:
                code = await _end(session)
                return code == 0 or code > 128
        except (ApiRefusedError, ApiUnreachableError):
            return False

    async def _send(self, file: IO[bytes], size: int, work_path: str) -> tuple[int, str]:
        file.seek(0)
        command = ["sh", "-c", _PUT, "put", str(size), work_path]
        async with running(self._cluster, self._pod, MAIN, command, has_input=True) as session:
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await session.send(data)
            code = await _end(session)
            if code == _OVERTAKEN:
                raise ApiUnreachableError("an earlier call that gives the inputs came late; they are given again")
            return code, words_of(session)

    async def _fetch(self, file: IO[bytes], path: str, names: Sequence[str], without: Sequence[str]) -> int:
        """Returns the code of the tar that packed what is in ``file`` now."""
        code, words = await tried(lambda: self._receive(file, path, names, without))
        if code != 0 and without:  # perhaps a tar that cannot leave anything out
            code, words = await tried(lambda: self._receive(file, path, names))
        if code not in {0, _TAR_CHANGED, _NOTHING}:
            raise CollectFailedError(f"what the task left cannot be packed ({words}); {_TAR_WORDS}")
        return code

    async def _receive(
        self, file: IO[bytes], path: str, names: Sequence[str], without: Sequence[str] = ()
    ) -> tuple[int, str]:
        file.seek(0)
        file.truncate()
        command = ["sh", "-c", _GET, "get", path, str(len(without)), *without, *names]
        async with running(self._cluster, self._pod, MAIN, command) as session:
            async for data in session.output():
                await asyncio.to_thread(file.write, data)
            file.seek(0)
            return session.exit_code or 0, words_of(session)


async def tried(attempt: Callable[[], Awaitable[T]]) -> T:
    """Returns what an attempt returns, trying again while the cluster is away."""
    pause_s = _MIN_PAUSE_S
    for _ in range(_TRIES - 1):
        try:
            return await attempt()
        except ApiUnreachableError:
            await asyncio.sleep(pause_s)
        except ApiRefusedError as exc:
            if not exc.is_worth_retrying and not exc.is_about_rights:
                raise
            await asyncio.sleep(pause_s)
        pause_s *= 2
    return await attempt()


async def _end(session: ExecSession) -> int:
    async for _ in session.output():
        pass
    return 255 if session.exit_code is None else session.exit_code


def words_of(session: ExecSession) -> str:
    """Returns what a command complained of at its end; never nothing."""
    text = session.stderr.decode(errors="replace")
    if len(session.stderr) == STDERR_BYTES:
        text = without_first_line(text)
    return last_lines(text.strip(), _SHOWN_CHARACTERS) or f"exit code {session.exit_code}"
