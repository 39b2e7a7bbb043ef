"""An ant runs what its owner dispatches, and says how it ended."""

from pathlib import Path

from formicary.ant.ant import Ant
from formicary.artifacts.local import LocalStore
from formicary.events.orders import Fetch
from formicary.events.tasks import TaskDeclined, TaskFinished, TaskStarted
from formicary.model.definition import ArtifactsPolicy, ArtifactWhen

from .conftest import Owner, dummy, python, shell


async def test_a_script_ends_with_its_exit_code_its_outputs_and_its_log(owner: Owner) -> None:
    end = await owner.run(
        shell("echo hello", "echo '::set-output name=rows::3'", 'echo "name=ünï" >> "$FORMICARY_OUTPUT"', "exit 7")
    )
    assert (end.reason, end.exit_code, end.is_success) == ("exited", 7, False)
    assert end.outputs == {"rows": 3, "name": "ünï"}
    assert [(stream, text) for _, _, stream, text in await owner.lines()] == [("stdout", "hello")]
