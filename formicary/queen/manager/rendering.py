"""Documents with ``dynamic_template_tasks``: rendered with a request's params when it is submitted."""

import asyncio
from collections.abc import Mapping
from typing import Any

from formicary.errors import InvalidInputError, Problem
from formicary.model.definition import JobDefinition
from formicary.model.jobs import TaskView
from formicary.model.parse import parse_rendered
from formicary.queen.manager.views import untouched
from formicary.template.document import render_document
from formicary.template.errors import TemplateError

#: Documents rendered at once: each takes a process.
_AT_ONCE = 2


class Renderer:
    """Renders documents, a few at a time."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def tasks(self, definition: JobDefinition, params: Mapping[str, Any]) -> tuple[tuple[TaskView, ...], str]:
        """Returns the tasks of the document rendered with ``params``, and its text.

        Raises:
            InvalidInputError: it cannot be rendered with these params, or what comes out is no definition.
        """
        scope = {**definition.job_variables, **params}
        try:
            async with self._places:
                text = await render_document(definition.source, scope)
        except TemplateError as error:
            raise InvalidInputError(str(error), [Problem(message=str(error))]) from error
        rendered = await asyncio.to_thread(parse_rendered, text, f"{definition.job_type} (rendered)")
        return untouched(rendered), text
