"""Services beside a task, on a network of their own."""

import asyncio
import io
import shutil
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from executors.base import Reason
from executors.errors import ServiceError, SpecRefusedError
from executors.specs import ReadySpec, ServiceSpec
from tests.engines import IMAGE, TestEngine, needs_engine
from tests.integration.docker.conftest import Bench, MakeBench, peak_bytes, spec, until
from tests.integration.docker.proxy import Proxy

pytestmark = [needs_engine, pytest.mark.usefixtures("leaves_nothing")]

_SERVE = "mkdir -p /www && echo served > /www/index.html && {wait} exec httpd -f -p 8080 -h /www"


def service(name: str = "web", *, command: str = _SERVE.format(wait=""), **fields: Any) -> ServiceSpec:
    return ServiceSpec(**{"name": name, "image": IMAGE, "command": ("sh", "-c", command), **fields})


async def test_a_task_reaches_its_services_by_name_once_they_are_ready(bench: Bench) -> None:
    by_port = service(ports=(8080,), ready=ReadySpec(port=8080), command=_SERVE.format(wait="sleep 1;"))
    by_command = service(
        "other", ready=ReadySpec(command=("wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/index.html"))
    )
    script = "for name in web other; do wget -q -O - http://$name:8080/index.html; done"

    ended = await bench.run(spec(script, services=(by_port, by_command)))

    assert ended.text == "served\nserved\n"


@pytest.fixture
def bare_image(engine: TestEngine) -> Iterator[str]:
    """An image that holds a web server alone: no shell, and nothing to look around with."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(shutil.which("busybox") or "", "bin/httpd")
    engine.call("POST", "/images/create?fromSrc=-&repo=bare&tag=local", file.getvalue())
    yield "bare:local"
    engine.call("DELETE", "/images/bare:local")


async def test_the_port_of_a_service_is_looked_at_where_the_engine_is(
    make_bench: MakeBench, engine: TestEngine, bare_image: str
) -> None:
    async with Proxy(engine.url) as proxy:
        bench = await make_bench(docker_host=proxy.url)
        web = service(ready=ReadySpec(port=8080))
        bare = ServiceSpec(name="web", image=bare_image, command=("/bin/httpd", "-f", "-p", "8080"), ready=web.ready)

        assert (await bench.run(spec("wget -q -O - http://web:8080/", services=(web,)))).text == "served\n"
        with pytest.raises(ServiceError, match=r"image bare:local has no cat.*use ready.command"):
            await bench.run(spec("true", services=(bare,)))
        await bench.executor.close()
    near = await make_bench()
    assert (await near.run(spec("wget -O - http://web:8080/ 2>&1; :", services=(bare,)))).text.count("404") == 1


async def test_a_port_that_only_the_service_itself_reaches_is_not_open(bench: Bench) -> None:
    command = _SERVE.format(wait="").replace("-p 8080", "-p 127.0.0.1:8080")

    with pytest.raises(ServiceError, match="not ready within 1 s"):
        await bench.run(spec("true", services=(service(command=command, ready=ReadySpec(port=8080, timeout_s=1)),)))


async def test_a_ready_command_may_say_more_than_anyone_reads(bench: Bench) -> None:
    loud = service(command="sleep 60", ready=ReadySpec(command=("sh", "-c", "dd if=/dev/zero bs=1M count=40; true")))
    before = peak_bytes()

    assert (await bench.run(spec("true", services=(loud,)))).outcome.is_success
    assert peak_bytes() - before < 20 * 2**20


async def test_a_service_has_its_own_environment_and_limits(bench: Bench) -> None:
    told = "echo $GREETING > /www/index.html; {limit} >> /www/index.html; exec httpd -f -p 8080 -h /www"
    limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null"
    web = service(
        command="mkdir -p /www; " + told.format(limit=limit),
        environment={"GREETING": "hi"},
        memory_limit="32Mi",
        ready=ReadySpec(port=8080),
    )

    ended = await bench.run(spec("wget -q -O - http://web:8080/", services=(web,)))

    assert ended.text == f"hi\n{32 * 2**20}\n"


async def test_tasks_with_services_do_not_see_each_other(bench: Bench) -> None:
    say = "mkdir -p /www; echo {} > /www/index.html; exec httpd -f -p 8080 -h /www"
    one, two = (service(command=say.format(number), ready=ReadySpec(port=8080)) for number in (1, 2))
    script = "wget -q -O - http://web:8080/; sleep 1; wget -q -O - http://web:8080/"

    first, second = await asyncio.gather(*(bench.run(spec(script, services=(each,))) for each in (one, two)))

    assert (first.text, second.text) == ("1\n1\n", "2\n2\n")


async def test_a_service_that_never_gets_ready_fails_the_task_and_shows_its_log(bench: Bench) -> None:
    silent = service(command="echo starting up; sleep 60", ready=ReadySpec(port=8080, timeout_s=2))

    with pytest.raises(ServiceError, match=r"service web was not ready within 2 s.*port 8080") as caught:
        await bench.run(spec("echo never", services=(silent,)))

    assert "[web] starting up" in caught.value.__notes__[0]


async def test_what_a_ready_command_last_said_is_told_where_it_never_succeeds(bench: Bench) -> None:
    web = service(command="sleep 60", ready=ReadySpec(command=("no_such_command",), timeout_s=3))

    with pytest.raises(ServiceError, match=r"waited for no_such_command to succeed, which last said: .*not found"):
        await bench.run(spec("echo never", services=(web,)))


async def test_what_a_service_said_is_told_whole_so_that_a_secret_in_it_is_recognised(bench: Bench) -> None:
    said = "-" * 1990 + "a\\secret"
    ready = ReadySpec(command=("sh", "-c", f"echo '{said}'; false"), timeout_s=0.5)
    web = service(command=f"echo '{said}'; sleep 60", ready=ready)

    with pytest.raises(ServiceError, match="which last said") as caught:
        await bench.run(spec("echo never", services=(web,)))

    assert f"which last said: {said};" in str(caught.value)
    assert f"[web] {said}" in caught.value.__notes__[0]


async def test_a_service_that_ends_before_it_is_ready_fails_the_task_at_once(bench: Bench) -> None:
    broken = service(command="echo no license; exit 4", ready=ReadySpec(port=8080, timeout_s=60))

    async with asyncio.timeout(40):
        with pytest.raises(ServiceError, match="service web ended with exit code 4") as caught:
            await bench.run(spec("echo never", services=(broken,)))

    assert "[web] no license" in caught.value.__notes__[0]


async def test_a_service_that_cannot_run_is_an_error_of_its_own(bench: Bench) -> None:
    with pytest.raises(ServiceError, match="service web did not start"):
        await bench.run(spec("true", services=(ServiceSpec(name="web", image=IMAGE, entrypoint=("/no/such",)),)))


async def test_a_stop_ends_the_waiting_for_a_service(bench: Bench, engine: TestEngine) -> None:
    silent = service(command="sleep 60", ready=ReadySpec(command=("false",)))
    run = await bench.start(spec("echo never", services=(silent,)))
    await until(lambda: engine.call("GET", "/containers/json"))

    async with asyncio.timeout(40):
        await bench.executor.stop(run, 10, Reason.CANCELLED)

    assert (await bench.executor.wait(run)).reason is Reason.CANCELLED
    assert engine.containers() == []
    await bench.executor.cleanup(run)


async def test_a_rendered_name_that_is_no_host_name_is_refused(bench: Bench) -> None:
    with pytest.raises(SpecRefusedError, match=r"services\[0\]\.name"):
        await bench.start(spec("true", services=(service("no name"),)))


@pytest.mark.parametrize("network", ["none", "host"])
async def test_services_need_a_network(bench: Bench, network: str) -> None:
    with pytest.raises(SpecRefusedError, match=r"container\.network"):
        await bench.start(spec("true", container={"network": network}, services=(service(),)))
