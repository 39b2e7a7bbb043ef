"""Big files straight between a container and the artifact store, by signed URLs, where the image has ``curl``.

URLs go to the container on the standard input of exec, and to curl as its configuration: no argument, variable,
manifest or log holds them. None of this has to work: what does not go this way goes by ``transfer.py``.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from executors.base import Input, Shortcut, Upload
from executors.kubernetes.archive import roots
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from executors.kubernetes.exec import CHUNK_BYTES, running
from executors.kubernetes.manifest import MAIN
from executors.kubernetes.transfer import OWN, tried, words_of
from executors.kubernetes.volumes import HOME_PATH

#: Most files of one attempt that go this way.
_MOST_FILES: Final = 200
#: The most that a container may say about its files.
_LIMIT_BYTES: Final = 4 * 1024 * 1024
#: Names that mean the same to every shell, tar and curl.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_./ +=,@%-]+")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: Of a command that is not there, or of a shell that finds none.
_NOT_FOUND: Final = 127
#: Says now and then that the container is alive, which is silent for minutes while it digests a file. What sleeps must
#: not hold the connection, which ends with the last that does.
_ALIVE: Final = """
while sleep 30 >/dev/null 2>&1; do echo >&2; done </dev/null &
alive=$!
trap 'kill "$alive"' EXIT
"""
#: Reads the configuration of one call of curl, up to an empty line; its progress shows that the container is alive.
_CURL = r"""
cd "$1" || exit 3
shift
call() {
  while read -r line && [ -n "$line" ]; do printf '%s\n' "$line"; done |
    curl -q -f -g --connect-timeout 5 --speed-limit 1024 --speed-time 30 --retry 1 -K - "$@"
}
"""
#: Whole files only are put in place, and only by the last call that gives inputs.
_FETCH: Final = (
    _ALIVE
    + _CURL
    + OWN
    + f"""
command -v sha256sum >/dev/null && command -v curl >/dev/null || exit 127
[ ! -e {HOME_PATH}/in ] && : >"$own" || exit 4
"""
    + """
while [ $# -gt 0 ]; do
  case "$3" in */*) mkdir -p "./${3%/*}" || exit 3 ;; esac
  part="./$3.$$.part"
  trap 'kill "$alive"; rm -f "$part"' EXIT
  call -o "$part" || exit
  case "$(sha256sum <"$part")" in "$1"*) ;; *) echo "$3 came with another sha256" >&2; exit 4 ;; esac
  [ "$2" = - ] || chmod +x "$part"
  [ -e "$own" ] && [ ! -d "./$3" ] && mv -f "$part" "./$3" || exit 4
  shift 3
done
"""
)
#: Nothing is found where tar would pack again what was sent: not every tar can leave out a file.
_FIND: Final = f"""{_ALIVE}
(cd {HOME_PATH} && tar -cf - --exclude=./none ./pid) >/dev/null 2>&1 || exit {_NOT_FOUND}
cd "$1" || exit 3
small=$2 most=$3
shift 3
for path; do
  [ ! -e "./$path" ] || find "./$path" -type f -size +"$small"c ! -size +"$most"c
done
exit 0
"""
_DIGEST: Final = f"""{_ALIVE}
cd "$1" || exit 3
shift
for path; do
  [ -f "./$path" ] && [ ! -L "./$path" ] && sum=$(sha256sum <"./$path") && size=$(wc -c <"./$path") || continue
  [ -x "./$path" ] && x=x || x=-
  echo "${{sum%% *}} $((size)) $x $path"
done
exit 0
"""
_SEND: Final = _CURL + 'for path; do call -o /dev/null -T "./$path" && echo sent || exit; done\n'


class _Left(NamedTuple):
    """A file that a script left."""

    name: str
    sha256: str
    size_bytes: int
    is_executable: bool


class DirectTransfer:
    """Moves big files of one pod's main container.

    ``trouble`` says why some did not go, where it was not for want of curl; nothing else is tried then.
    """

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster = cluster
        self._pod = pod
        self.trouble = ""

    async def fetch(self, work_path: str, inputs: Sequence[Input]) -> bool:
        """Has the container get artifacts; tells whether all of them are in its working directory, and whole."""
        words = [word for one in inputs for word in (one.sha256, "x" if one.is_executable else "-", one.name)]
        configuration = "".join(_configuration(Upload(one.url or "")) for one in inputs)
        return await self._run(_FETCH, [work_path, *words], configuration) is not None

    async def send(self, work_path: str, patterns: Sequence[str], shortcut: Shortcut) -> list[str]:
        """Has the container store big files that patterns select; returns the names of those that are stored."""
        sizes = str(shortcut.least_bytes - 1), str(shortcut.most_bytes)
        found = await self._run(_FIND, [work_path, *sizes, *roots(tuple(patterns))])
        names = dict.fromkeys(posixpath.normpath(line) for line in (found or "").splitlines() if line.startswith("./"))
        wanted = [name for name in names if _PLAIN_NAME.fullmatch(name) and shortcut.is_wanted(name)][:_MOST_FILES]
        if not wanted:
            return []
        said = await self._run(_DIGEST, [work_path, *wanted])
        uploads: dict[str, Upload] = {}
        for left in filter(None, map(_parsed, (said or "").splitlines())):
            if left.name not in wanted:
                continue
            upload = await shortcut.offer(left.name, left.sha256, left.size_bytes, is_executable=left.is_executable)
            if upload is not None:
                uploads[left.name] = upload
        return [name for name in await self._put(work_path, uploads) if await shortcut.accept(name)]

    async def _put(self, work_path: str, uploads: dict[str, Upload]) -> list[str]:
        if not uploads:
            return []
        configuration = "".join(map(_configuration, uploads.values()))
        said = await self._run(_SEND, [work_path, *uploads], configuration, is_whole=False)
        return list(uploads)[: (said or "").count("sent\n")]

    async def _run(self, script: str, words: Sequence[str], given: str = "", *, is_whole: bool = True) -> str | None:
        """Returns what a script wrote, or None where it failed; ``is_whole``: what it wrote until then counts not."""
        try:
            code, said, complaint = await tried(lambda: self._said(["sh", "-c", script, "direct", *words], given))
        except (ApiRefusedError, ApiUnreachableError) as exc:
            self.trouble = str(exc)
            return None
        if code not in {0, _NOT_FOUND}:
            self.trouble = complaint
        return None if code != 0 and is_whole else said

    async def _said(self, command: list[str], given: str) -> tuple[int, str, str]:
        said, data = bytearray(), given.encode()
        async with running(self._cluster, self._pod, MAIN, command, has_input=bool(given)) as session:
            for start in range(0, len(data), CHUNK_BYTES):
                await session.send(data[start : start + CHUNK_BYTES])
            async for piece in session.output():
                said += piece
                if len(said) > _LIMIT_BYTES:
                    return 255, "", "the container says too much about its files"
            code = 255 if session.exit_code is None else session.exit_code
            return code, said.decode(errors="replace"), _complaint(words_of(session))


def _configuration(upload: Upload) -> str:
    """Returns what one call of curl reads."""
    lines: Iterable[str] = (
        f"url = {_quoted(upload.url)}",
        *(f"header = {_quoted(f'{name}: {value}')}" for name, value in upload.headers.items()),
    )
    return "\n".join(lines) + "\n\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _parsed(line: str) -> _Left | None:
    """Returns the file that a line is about: digest, size, whether it can be executed, name."""
    parts = line.split(" ", 3)
    if len(parts) != 4 or not _SHA256.fullmatch(parts[0]) or not (parts[1].isascii() and parts[1].isdigit()):
        return None
    return _Left(parts[3], parts[0], int(parts[1]), parts[2] == "x")


def _complaint(words: str) -> str:
    """Returns the line that says what was wrong, among those of curl's progress."""
    lines = words.replace("\r", "\n").splitlines()
    return next((line for line in reversed(lines) if line.startswith("curl: (")), lines[-1])
