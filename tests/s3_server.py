"""A real S3 server in a process of its own."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aioboto3
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "servers"
BUCKET = "conformance"


class S3Server:
    """A real S3 server, run by ``scripts/servers`` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.urls: dict[str, str] = {}

    @property
    def endpoint(self) -> str:
        return self.urls["FORMICARY_TEST_S3_ENDPOINT"]

    @property
    def login(self) -> dict[str, str]:
        """Returns the variables that give access to it."""
        keys = (self.urls[f"FORMICARY_TEST_S3_{name}_KEY"] for name in ("ACCESS", "SECRET"))
        return dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), keys, strict=True))

    def url(self, prefix: str, endpoint: str | None = None, **options: str) -> str:
        """Returns the URL of a store below a prefix of the bucket."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"s3://{BUCKET}/{prefix}?endpoint={endpoint or self.endpoint}&region=us-east-1{more}"

    def start(self) -> None:
        for line in self._run("start").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.urls[name] = shlex.split(value)[0]

    async def make_bucket(self) -> None:
        async with aioboto3.Session().client("s3", endpoint_url=self.endpoint, region_name="us-east-1") as client:
            await client.create_bucket(Bucket=BUCKET)

    def plant(self, name: str) -> None:
        """Makes an empty object behind the server's back, which serves a folder: faster than by requests."""
        path = self._folder / "s3" / "data" / BUCKET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def kill(self) -> None:
        """Ends it as a crash would; its data stay for the next start."""
        os.kill(int((self._folder / "s3" / "pid").read_text()), signal.SIGKILL)
        self._run("stop")

    def stop(self) -> None:
        self._run("stop", "--purge")

    def _run(self, action: str, *arguments: str) -> str:
        command = [sys.executable, str(SCRIPT), action, "s3", "--dir", str(self._folder), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout


@contextmanager
def serving(folder: Path) -> Iterator[S3Server]:
    """Yields a server with its bucket, and has the variables that give access to it."""
    server = S3Server(folder)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.login.items():
            patch.setenv(name, value)
        asyncio.run(server.make_bucket())
        yield server
    server.stop()
