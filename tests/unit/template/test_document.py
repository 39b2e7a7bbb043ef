import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from formicary.template.document import render_document
from formicary.template.errors import TemplateError

ENDLESS = "{% for i in range(4000000) %}{% if i == -1 %}{% endif %}{% endfor %}"


def worker_ids() -> set[str]:
    """The live worker processes of documents that this process started, zombies left out."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = int((folder / "stat").read_text().rpartition(") ")[2].split()[1]) == os.getpid()
            if is_ours and b"document_worker" in (folder / "cmdline").read_bytes():
                found.add(folder.name)
        except OSError:
            continue
    return found


def stop_the_worker_beside(before: set[str]) -> None:
    """Has the next worker go no further, so that it is rendering however long the test takes."""
    give_up_at = time.monotonic() + 60
    while not (beside := worker_ids() - before):
        assert time.monotonic() < give_up_at
    os.kill(int(beside.pop()), signal.SIGSTOP)


async def test_a_document_is_rendered_with_its_params() -> None:
    text = "{% for n in names %}- {{ n }}\n{% endfor %}{% raw %}{{ later }}{% endraw %}\n"
    assert await render_document(text, {"names": ["a", "b"]}, limit_s=100) == "- a\n- b\n{{ later }}\n"


async def test_a_document_that_takes_too_long_is_ended_with_its_process() -> None:
    before = worker_ids()
    with pytest.raises(TemplateError, match=r"not rendered after 0\.2 s"):
        await render_document(ENDLESS, {}, limit_s=0.2)
    assert not worker_ids() - before


async def test_the_loop_goes_on_while_a_document_is_rendered() -> None:
    before = worker_ids()
    rendering = asyncio.ensure_future(render_document(ENDLESS, {}, limit_s=100))
    await asyncio.to_thread(stop_the_worker_beside, before)
    for _ in range(100):
        await asyncio.sleep(0)
    assert worker_ids() - before
    assert not rendering.done()
    rendering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rendering


async def test_a_cancelled_rendering_leaves_no_process() -> None:
    before = worker_ids()
    rendering = asyncio.ensure_future(render_document(ENDLESS, {}, limit_s=100))
    await asyncio.to_thread(stop_the_worker_beside, before)
    rendering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rendering
    assert not worker_ids() - before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ x", "line 1"),
        ("\n\n{% include 'x' %}", "line 3: include is not allowed"),
        ("{{ nothing }}", '"nothing" is not defined; defined are names'),
        ("{% for i in range(10 * 1000000000) %}{% endfor %}", "5,000,000 steps"),
        ("{% for i in range(4000000) %}{{ 'abcdefgh' }}{% endfor %}", "16,777,216 characters"),
    ],
)
async def test_what_is_wrong_with_a_document_is_said(text: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        await render_document(text, {"names": []}, limit_s=100)
    assert words in caught.value.message


@pytest.mark.parametrize("value", ["{{ secret }}", ["{% x %}"], {"a": "{# x #}"}])
async def test_a_param_cannot_bring_a_template_into_the_document(value: object) -> None:
    with pytest.raises(TemplateError) as caught:
        await render_document("{{ x }}", {"x": value})
    assert caught.value.path.startswith("params.x")
