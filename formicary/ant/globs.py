"""Which files a task leaves: patterns over a folder, never leaving it.

``*`` and ``?`` stay within one name, ``**`` spans folders, ``[…]`` is a set; a pattern that names a folder means all
files under it. Symlinks to files inside are read; one that leads outside is refused where a pattern selects it.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from formicary.ant.errors import TransferError

#: Longest name of an artifact, in bytes.
MAX_NAME_BYTES: Final = 1024


def check_name(name: str) -> str:
    """Returns the name of an artifact.

    Raises:
        TransferError: it is absolute, climbs (``..``), has empty parts or NUL, is too long or not UTF-8.
    """
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise TransferError(repr(name), "must be a relative path without '.', '..' and empty parts")
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise TransferError(repr(name), "is not UTF-8; rename the file") from None
    if size > MAX_NAME_BYTES:
        raise TransferError(repr(name), f"is longer than {MAX_NAME_BYTES} bytes")
    return name


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Returns what matches the relative paths that a pattern selects.

    Raises:
        TransferError: the pattern is absolute or climbs out of the folder.
    """
    cleaned = pattern.strip().removeprefix("./").rstrip("/")
    if pattern.strip() in (".", "./"):
        cleaned = "**"
    if not cleaned or cleaned.startswith("/") or ".." in cleaned.split("/"):
        raise TransferError(repr(pattern), "must be a relative path or glob inside the working directory")
    parts = [_translate(part) for part in cleaned.split("/")]
    body = "/".join(parts).replace("(?:.*)/", "(?:.*/)?")
    try:
        return re.compile(body + r"(?:/.*)?", re.DOTALL)
    except re.error as exc:
        raise TransferError(repr(pattern), f"is no glob: {exc}; '[' begins a set of characters like [a-z]") from exc


def plain_name(pattern: str) -> str | None:
    """Returns the file or folder that a pattern without wildcards names, None where it has some or names everything."""
    name = pattern.strip().removeprefix("./").rstrip("/")
    is_plain = name not in ("", ".") and not set("*?[").intersection(name) and ".." not in name.split("/")
    return name if is_plain and not name.startswith("/") else None


def is_real(work: Path, name: str) -> bool:
    """Says whether no symlink is on the way to a folder. Blocks."""
    return (work / name).resolve() == work.resolve() / name


def _translate(part: str) -> str:
    if part == "**":
        return "(?:.*)"
    out, at = "", 0
    while at < len(part):
        char, end = part[at], part.find("]", at + 2)
        if char == "[" and end > 0:
            inner = part[at + 1 : end].replace("\\", r"\\")
            out += "[" + ("^" + inner[1:] if inner[0] == "!" else re.escape(inner[0]) + inner[1:]) + "]"
            at = end
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char)
        at += 1
    return out


def select_files(folder: Path, paths: Sequence[str], exclude: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Returns the selected files by name, sorted, and the patterns that selected nothing. Blocks.

    Raises:
        TransferError: a bad pattern, a name that no store takes, or a symlink that leads out of the folder.
    """
    wanted = [(pattern, compile_pattern(pattern)) for pattern in paths]
    unwanted = [compile_pattern(pattern) for pattern in exclude]
    unmatched = dict.fromkeys(paths)
    files: dict[str, Path] = {}
    inside = folder.resolve()
    for name, is_link in _walk(folder):
        hits = [pattern for pattern, regex in wanted if regex.fullmatch(name)]
        if not hits or any(regex.fullmatch(name) for regex in unwanted):
            continue
        for pattern in hits:
            unmatched.pop(pattern, None)
        files.update(_followed(inside, name) if is_link else [(check_name(name), inside / name)])
    return dict(sorted(files.items())), list(unmatched)


def _walk(top: Path) -> Iterator[tuple[str, bool]]:
    """Yields the relative paths of files and symlinks, and whether it is one; skips sockets, pipes and devices.

    No link is followed, so whatever it yields lies inside.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(top / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                    yield name, entry.is_symlink()


def _followed(inside: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Yields the file that a symlink leads to, or the files of the folder."""
    real = Path(os.path.realpath(inside / name))  # a circle of links is no error there
    if not real.is_relative_to(inside):
        raise TransferError(repr(name), f"is a symlink out of the working directory, to {real}; copy the file instead")
    if real.is_file():
        yield check_name(name), real
    elif real.is_dir():
        for below, is_link in _walk(real):
            if not is_link:
                yield check_name(f"{name}/{below}"), real / below
    else:
        raise TransferError(repr(name), "is a symlink that leads nowhere")
