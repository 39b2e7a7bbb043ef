"""``limits`` of a script, as a definition and the settings of an ant write them."""

import pytest

from executors.errors import SpecRefusedError
from executors.limits import bounded
from executors.specs import Limits, ShellSpec
from formicary.ant_options import AntOptions, executor_options
from formicary.errors import InvalidInputError
from formicary.model.parse import parse_definition
from formicary.model.parse_limits import parse_limits
from formicary.settings import load

JOB = 'job_type: one\ntasks:\n  - {{task_type: a, method: SHELL, script: ["true"], limits: {}}}\n'


def limits_of(text: str) -> Limits | None:
    (task,) = parse_definition(JOB.format(text)).tasks
    assert isinstance(task.spec, ShellSpec)
    return task.spec.limits


def test_a_definition_bounds_what_it_names() -> None:
    assert limits_of("{cpu_time: 1m30s, memory: 1.5Gi, open_files: 256, processes: 64}") == Limits(
        cpu_time_s=90.0, memory_bytes=3 * 2**29, open_files=256, processes=64
    )
    assert limits_of("{memory: 512Mi}") == Limits(memory_bytes=512 * 2**20)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{cpu_time: 90}", "cpu_time"),
        ("{cpu_time: 0s}", "cpu_time"),
        ("{memory: lots}", "memory"),
        ("{memory: 1k}", "memory"),
        ("{open_files: 0}", "open_files"),
        ("{processes: 1.5}", "processes"),
        ("{memroy: 1Gi}", "memroy"),
        ("512Mi", "limits"),
    ],
)
def test_what_is_wrong_is_named(text: str, path: str) -> None:
    with pytest.raises(InvalidInputError, match=path):
        limits_of(text)


def test_the_setting_is_read_like_a_definition() -> None:
    text = "cpu_time=1h, memory=2Gi,open_files=4096,processes=512,"
    assert parse_limits(text) == Limits(cpu_time_s=3600.0, memory_bytes=2**31, open_files=4096, processes=512)
    assert parse_limits("") == Limits()


@pytest.mark.parametrize(
    "text", ["memory", "memory=", "memory=lots", "cpu_time=0s", "cpu_time=9", "disk=1", "processes=0"]
)
def test_a_setting_that_cannot_be_read_is_named(text: str) -> None:
    settings = load({"FORMICARY_SHELL_LIMITS": text, "HOME": "/nowhere"})
    with pytest.raises(InvalidInputError, match="FORMICARY_SHELL_LIMITS: "):
        executor_options(settings, AntOptions(), settings.home)


def test_what_an_ant_allows_is_what_a_task_gets_that_asks_for_nothing() -> None:
    most = Limits(cpu_time_s=60.0, processes=10)

    assert bounded(None, most) == most
    assert bounded(Limits(processes=5, memory_bytes=100), most) == Limits(
        cpu_time_s=60.0, processes=5, memory_bytes=100
    )
    with pytest.raises(SpecRefusedError, match=r"limits\.processes: 11 is more than the 10"):
        bounded(Limits(processes=11), most)
