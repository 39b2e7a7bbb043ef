"""The certificates by which an ant comes to an engine are renewed while it runs."""

import ssl
from pathlib import Path

import pytest
from aiohttp import web

from executors.docker.engine import Engine
from executors.docker.errors import EngineLostError
from tests.certificates import make_certificate


async def test_certificates_that_were_renewed_are_used_at_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    cert, key, authority = (tmp_path / f"{name}.pem" for name in ("cert", "key", "ca"))
    make_certificate(authority, tmp_path / "server.key")
    make_certificate(tmp_path / "new.pem", tmp_path / "new.key")
    make_certificate(cert, key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "new.pem"))
    context.load_cert_chain(authority, tmp_path / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.47"})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port, ssl_context=context).start()
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    engine = Engine(f"tcp://127.0.0.1:{unused_tcp_port}")

    with pytest.raises(EngineLostError):
        await engine.ping()
    (tmp_path / "new.pem").replace(cert)  # and its key a moment later
    with pytest.raises(EngineLostError):
        await engine.ping()
    (tmp_path / "new.key").replace(key)
    await engine.ping()

    assert await engine._connection.answers()
    await engine.close()
    await runner.cleanup()
