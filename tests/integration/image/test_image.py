"""The Dockerfile, built for real where this machine may run an engine of its own; its base is this machine's Python."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "scripts" / "servers.d" / "docker"
NEEDED = ("docker", "dockerd", "busybox", "ip", "curl")

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, NEEDED)),
        reason="an engine of one's own needs root and: apt-get install docker.io busybox-static iproute2 curl",
    ),
    pytest.mark.timeout(400),
]

Docker = Callable[..., str]


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    """Calls an engine with a base image in it."""
    folder = tempfile.mkdtemp(prefix="fdk-")  # short: a socket's path ends at 107 characters
    socket = f"unix://{folder}/docker.sock"

    def run(*arguments: str) -> str:
        command = ["docker", "-H", socket, *arguments]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        return ended.stdout

    try:
        subprocess.run([SCRIPTS / "start.sh", folder], check=True, capture_output=True)
        subprocess.run([SCRIPTS / "base-image.sh", f"{folder}/docker.sock"], check=True, capture_output=True)
        yield run
    finally:
        subprocess.run([SCRIPTS / "stop.sh", folder], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def image(docker: Docker) -> str:
    docker("build", "--network", "host", "--build-arg", "BASE_IMAGE=hostpython:local", "--tag", "formicary:test", ".")
    return "formicary:test"


def test_the_image_is_small_and_does_not_run_as_root(docker: Docker, image: str) -> None:
    (found,) = json.loads(docker("image", "inspect", image))
    (base,) = json.loads(docker("image", "inspect", "hostpython:local"))
    assert found["Config"]["User"] == "10001:10001"
    assert found["Size"] - base["Size"] < 250 * 2**20


def test_the_image_runs_with_the_rights_that_the_stacks_give_it(docker: Docker, image: str) -> None:
    rights = ("--rm", "--init", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp", "--network", "none")
    assert docker("run", *rights, image, "--version").startswith("formicary ")
    assert "ok    dead letter" in docker("run", *rights, image, "broker", "check", "memory://")
    job = "job_type: hello\ntasks: [{task_type: a, method: SHELL, script: [id -u]}]\n"
    script = f"printf '%b' {json.dumps(job)} > /tmp/job.yaml && formicary run /tmp/job.yaml"
    assert "COMPLETED" in docker("run", *rights, "--entrypoint", "sh", image, "-c", script)
