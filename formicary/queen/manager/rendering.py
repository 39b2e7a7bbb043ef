"""Documents with ``dynamic_template_tasks``: rendered with a request's params when it is submitted."""

import asyncio
from collections.abc import Mapping
from typing import Any

from formicary.model.definition import JobDefinition
from formicary.model.jobs import TaskView
from formicary.model.parse import parse_rendered
from formicary.queen.manager.views import untouched
from formicary.template.document import render_document


async def render_tasks(definition: JobDefinition, params: Mapping[str, Any]) -> tuple[tuple[TaskView, ...], str]:
    """Returns the tasks of the rendered document, and its text.

    Raises:
        InvalidInputError: it cannot be rendered with these params, or what comes out is no definition.
    """
    text = await render_document(definition.source, {**definition.job_variables, **params})
    rendered = await asyncio.to_thread(parse_rendered, text, definition.job_type)
    return untouched(rendered), text
