"""The whole way: a job of pods from the command line, and an executor that runs in a pod itself."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from executors.specs import ServiceSpec
from tests.integration.kubernetes.conftest import (
    IMAGE,
    NAMESPACE,
    ROOT,
    Begin,
    ClusterUnderTest,
    MakeExecutor,
    script,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLE = ROOT / "docs" / "examples" / "pods" / "pods.yaml"
PAGE = ROOT / "docs" / "executors" / "kubernetes.md"
#: Runs one task in a pod, from inside of another one, without being told of any cluster.
INSIDE = """
import asyncio, pathlib
from executors.kubernetes.executor import KubernetesExecutor
from executors.specs import ContainerSpec, KubernetesSpec
from executors.testing import CollectingSink, make_attempt

async def main():
    executor = KubernetesExecutor()
    await executor.check()
    spec = KubernetesSpec(container=ContainerSpec(image="%s"), script=("cat given", "echo a=1 > $FORMICARY_OUTPUT"))
    attempt = make_attempt(spec, pathlib.Path("/tmp/inside/work"))
    (attempt.folder.path() / "given").write_text("from inside")
    sink = CollectingSink()
    run = await executor.start(attempt, sink)
    outcome = await executor.wait(run)
    await executor.collect(run, [], with_results=True)
    reference = run.handle.plan.owner_reference
    await executor.cleanup(run)
    await executor.close()
    print(outcome.exit_code, sink.text().decode(), attempt.folder.output_file.read_text(), reference["name"])

asyncio.run(main())
"""


async def test_an_executor_inside_the_cluster_uses_its_pods_account(cluster: ClusterUnderTest, tmp_path: Path) -> None:
    interpreter = Path(sys.base_prefix)
    folders = {"/usr", "/lib", "/lib64", str(interpreter), str(Path(sys.prefix)), str(ROOT)}
    program = tmp_path / "inside.py"
    program.write_text(INSIDE % IMAGE)
    names = {path: f"v{number}" for number, path in enumerate(sorted({*folders, str(tmp_path)}))}
    container = {
        "name": "ant",
        "image": IMAGE,
        "command": [sys.executable, str(program)],
        "env": [{"name": "PYTHONPATH", "value": str(ROOT)}, {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],
        "volumeMounts": [{"name": name, "mountPath": path, "readOnly": True} for path, name in names.items()],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "ant", "namespace": NAMESPACE},
        "spec": {
            "serviceAccountName": "agent",
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": name, "hostPath": {"path": path}} for path, name in names.items()],
        },
    }

    await cluster.apply(pod)
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    await cluster.kubectl("wait", ended, "pod/ant", "--timeout=60s", is_checked=False)
    said = await cluster.kubectl("logs", "ant")
    await cluster.kubectl("delete", "pod", "ant", "--grace-period=1")

    assert said.split() == ["0", "from", "inside", "a=1", "ant"], said


async def run_example(**environment: str) -> dict[str, Any]:
    """Returns the example's job, run as a person would."""
    formicary = Path(sys.executable).with_name("formicary")
    process = await asyncio.create_subprocess_exec(
        *(str(formicary), "run", str(EXAMPLE), "-p", f"image={IMAGE}", "-o", "json"),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    job: dict[str, Any] = json.loads(said)
    return job


@pytest_asyncio.fixture(loop_scope="module", scope="module", autouse=True)
async def example(
    cluster: ClusterUnderTest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator["asyncio.Task[dict[str, Any]]"]:
    """The example, which runs while the other tests do."""
    home = tmp_path_factory.mktemp("home")
    running = asyncio.create_task(run_example(KUBECONFIG=cluster.agent, FORMICARY_HOME=str(home)))
    yield running
    await asyncio.wait({running})


def kubeconfig(like: Path, token: str, path: Path) -> Path:
    """Writes a kubeconfig like another one, with another token."""
    users = f"users: [{{name: u, user: {{token: {token}}}}}]"
    lines = like.read_text().splitlines()
    path.write_text("\n".join(users if line.startswith("users:") else line for line in lines))
    return path


async def test_the_role_of_the_docs_is_all_that_an_ant_needs(
    cluster: ClusterUnderTest, make_executor: MakeExecutor, begin: Begin, tmp_path: Path
) -> None:
    """The other tests have the Role that ``scripts/servers`` makes; this one has what the page says."""
    blocks = PAGE.read_text(encoding="utf-8").split("```yml\n")
    manifest = next(block.split("```")[0] for block in blocks if "kind: Role\n" in block)
    await cluster.kubectl("create", "namespace", "formicary")
    await cluster.kubectl("-n", "formicary", "apply", "-f", "-", given=manifest)
    token = (await cluster.kubectl("-n", "formicary", "create", "token", "formicary-ant")).strip()
    config = kubeconfig(Path(cluster.agent), token, tmp_path / "kubeconfig")
    await cluster.kubectl("-n", "formicary", "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    executor = await make_executor(kubeconfig=str(config), namespace="formicary")
    service = ServiceSpec(name="idle", image=IMAGE, command=("sleep", "60"))

    run = await begin(script("cp given taken", services=(service,)), by=executor, inputs={"given": b"given"})
    outcome = await executor.wait(run)
    await executor.collect(run, ["taken"], with_results=True)
    await executor.cleanup(run)

    assert outcome.is_success
    assert (run.attempt.folder.path() / "taken").read_bytes() == b"given"
    await cluster.kubectl("delete", "namespace", "formicary", "--wait=false")


async def test_the_example_runs_from_the_command_line(
    cluster: ClusterUnderTest, example: "asyncio.Task[dict[str, Any]]"
) -> None:
    job = await example

    tasks = {task["task_type"]: task for task in job["tasks"]}
    assert {name: task["state"] for name, task in tasks.items()} == dict.fromkeys(tasks, "COMPLETED")
    assert tasks["measure"]["outputs"] == {"words": 20}
    assert [artifact["name"] for artifact in tasks["report"]["artifacts"]] == ["result/report.txt"]
    left = [pod for pod in await cluster.pods() if pod["metadata"]["labels"]["formicary/job-id"] == job["id"]]
    assert left == []
