"""Transfers of any size and number take a bounded amount of memory."""

import json
import subprocess
import sys
from pathlib import Path

from tests.s3_server import S3Server

MEBIBYTE = 1024 * 1024

#: Moves what its arguments say, and tells how much its memory grew meanwhile.
MOVE = """
import asyncio, json, resource, sys
from pathlib import Path
from formicary.artifacts.registry import make_store

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

async def main(url, folder, count):
    store = make_store(url)
    await store.open()
    source = folder / "source"
    small = folder / "small"
    small.write_bytes(bytes(1000))
    await store.fetch("warm", folder / "warm", (await store.put("warm", small)).sha256)
    before = peak_bytes()
    stored = await asyncio.gather(*(store.put(f"k{number}", source) for number in range(count)))
    put = peak_bytes() - before
    sha256 = stored[0].sha256
    await asyncio.gather(*(store.fetch(f"k{number}", folder / f"t{number}", sha256) for number in range(count)))
    print(json.dumps([put, peak_bytes() - before]))
    await store.close()

asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
"""


def moved(s3: S3Server, folder: Path, size_bytes: int, count: int) -> tuple[int, int]:
    with (folder / "source").open("wb") as file:
        file.truncate(size_bytes)
    command = [sys.executable, "-c", MOVE, s3.url(f"memory-{count}"), str(folder), str(count)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    for path in folder.iterdir():
        path.unlink()  # pytest would keep a gigabyte of them
    assert ended.returncode == 0, ended.stderr
    put, all_ = json.loads(ended.stdout)
    return put, all_


def test_a_big_object_takes_little_memory(s3: S3Server, tmp_path: Path) -> None:
    put, all_ = moved(s3, tmp_path, 500 * MEBIBYTE, 1)
    assert put < 64 * MEBIBYTE
    assert all_ < 64 * MEBIBYTE


def test_many_transfers_at_once_share_a_bounded_memory(s3: S3Server, tmp_path: Path) -> None:
    put, all_ = moved(s3, tmp_path, 16 * MEBIBYTE, 20)
    assert put < 100 * MEBIBYTE
    assert all_ < 160 * MEBIBYTE
