#!/usr/bin/env python3
"""mkimage.py ROOT NAME:TAG OUT.tar [--entrypoint JSON] [--cmd JSON]: packs a folder as an image of one layer.

The archive is what ``docker save`` writes and ``ctr images import`` reads; no registry, no builder.
"""

import argparse
import hashlib
import io
import json
import tarfile
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    """Packs what the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--entrypoint", type=json.loads)
    parser.add_argument("--cmd", type=json.loads)
    arguments = parser.parse_args()
    layer = packed(arguments.root)
    environment = [f"PATH={PATH}"]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Entrypoint": arguments.entrypoint, "Cmd": arguments.cmd, "WorkingDir": "/", "Env": environment},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    text = json.dumps(config, sort_keys=True).encode()
    name = hashlib.sha256(text).hexdigest() + ".json"
    manifest = [{"Config": name, "RepoTags": [arguments.name], "Layers": ["layer.tar"]}]
    with tarfile.open(arguments.out, "w") as archive:
        for member, data in ((name, text), ("layer.tar", layer), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def packed(root: Path) -> bytes:
    """Returns a folder as a layer, everything in it root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.iterdir()):
            archive.add(path, path.name, filter=owned)
    return buffer.getvalue()


def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Returns an entry that is root's and of no time."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    return entry


if __name__ == "__main__":
    main()
