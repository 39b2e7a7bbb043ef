from collections.abc import Callable

import pytest

from formicary.errors import Problem
from formicary.model.parse import parse_definition, parse_rendered
from formicary.template.document import render_document

DOCUMENT = """job_type: fan
dynamic_template_tasks: true   # one task a name
required_params: [names]
description: "for {{ names | length }} names"
timeout: 1h
tasks:
{% for name in names %}
  - task_type: greet-{{ name }}
    method: SHELL
    script: ["echo {{ name }} {% raw %}{{ job_id }}{% endraw %}"]
{% if not loop.first %}
    dependencies: [greet-{{ names[loop.index0 - 1] }}]
{% endif %}
{% endfor %}
{# the end #}
retry: 2
"""


def test_the_jobs_own_keys_are_read_before_rendering() -> None:
    job = parse_definition(DOCUMENT)
    assert (job.job_type, job.timeout_s, job.retry.limit, job.required_params) == ("fan", 3600, 2, ("names",))
    assert (job.dynamic_template_tasks, job.tasks, job.description) == (True, (), "")
    assert job.source == DOCUMENT


async def test_the_rendered_document_is_an_ordinary_definition() -> None:
    job = parse_rendered(await render_document(DOCUMENT, {"names": ["ann", "bob"]}))
    assert [task.task_type for task in job.tasks] == ["greet-ann", "greet-bob"]
    assert job.tasks[1].dependencies == ("greet-ann",)
    assert job.description == "for 2 names"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("job_type: fan", 'job_type: "{{ x }}"', 1, "before the document is rendered"),
        ("timeout: 1h", "timout: 1h", 5, 'did you mean "timeout"?'),
        ("timeout: 1h", "timeout: 1", 5, "its unit"),
        ("{% endfor %}\n", "", 7, "no valid template"),
        ("tasks:\n", "", 0, ""),
        ("retry: 2", "retry: [", 0, "no valid YAML"),
    ],
)
def test_mistakes_outside_the_tasks_are_found_before_rendering(
    old: str, new: str, line: int, words: str, problems: Callable[[str], list[Problem]]
) -> None:
    found = problems(DOCUMENT.replace(old, new))
    assert any(words in each.text("x") and each.line >= line for each in found)


def test_the_words_in_a_nested_place_make_no_dynamic_document(problems: Callable[[str], list[Problem]]) -> None:
    text = "job_type: a\ntasks:\n  - task_type: t\n    method: DUMMY\n    dynamic_template_tasks: true\n"
    assert problems(text)[0].path == "tasks[0].dynamic_template_tasks"
