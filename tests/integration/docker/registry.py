"""A registry of one image, as far as an engine needs it to pull: manifest, configuration, a layer; behind a login."""

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

USER, PASSWORD = "alice", "right"
_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Serves ``NAME:1``, whose only program is busybox as ``/bin/sh``, and counts the pulls."""

    def __init__(self, padding_bytes: int = 0) -> None:
        layer = _layer(padding_bytes)
        packed = gzip.compress(layer, 1)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        configuration = json.dumps(config).encode()
        self._blobs = {_digest(packed): packed, _digest(configuration): configuration}
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": _part("application/vnd.docker.container.image.v1+json", configuration),
            "layers": [_part("application/vnd.docker.image.rootfs.diff.tar.gzip", packed)],
        }
        self._manifest = json.dumps(manifest).encode()
        self.manifests_sent = 0
        app = web.Application()
        app.router.add_get("/v2/", self._ping)
        app.router.add_get("/v2/{name:.+}/manifests/{reference}", self._send_manifest)
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._send_blob)
        self._server = TestServer(app, host="127.0.0.1")

    async def start(self) -> str:
        """Starts it; returns the host and port that images' names begin with."""
        await self._server.start_server()
        return f"127.0.0.1:{self._server.port}"

    async def stop(self) -> None:
        await self._server.close()

    def _check(self, request: web.Request) -> None:
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("Authorization") != expected:
            errors = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
            headers = {"WWW-Authenticate": 'Basic realm="test"', "Docker-Distribution-API-Version": "registry/2.0"}
            raise web.HTTPUnauthorized(text=json.dumps(errors), content_type="application/json", headers=headers)

    async def _ping(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response({}, headers={"Docker-Distribution-API-Version": "registry/2.0"})

    async def _send_manifest(self, request: web.Request) -> web.Response:
        self._check(request)
        self.manifests_sent += request.method == "GET"
        headers = {"Docker-Content-Digest": _digest(self._manifest)}
        return web.Response(body=self._manifest, content_type=_MANIFEST_TYPE, headers=headers)

    async def _send_blob(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.Response(body=self._blobs[request.match_info["digest"]], content_type="application/octet-stream")


def _layer(padding_bytes: int) -> bytes:
    """Returns busybox, and what makes the pull take a moment."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add("/bin/busybox" if Path("/bin/busybox").exists() else "/usr/bin/busybox", "bin/sh")
        padding = tarfile.TarInfo("padding")
        padding.size = padding_bytes
        tar.addfile(padding, io.BytesIO(os.urandom(padding_bytes)))
    return archive.getvalue()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _part(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(data), "digest": _digest(data)}
