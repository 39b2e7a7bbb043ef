"""The front door of the job language: YAML in, a validated ``JobDefinition`` out, or every mistake at once."""

from formicary.errors import DefinitionError
from formicary.model.definition import JobDefinition
from formicary.model.parse_dynamic import is_dynamic, parse_head
from formicary.model.parse_flow import check_flow
from formicary.model.parse_job import JOB_RECORD, build_job
from formicary.model.parse_problems import Problems
from formicary.model.parse_templates import check_templates
from formicary.model.parse_yaml import MAX_DOCUMENT_BYTES, decode, locator, read_document

#: The largest rendered document that is read.
MAX_RENDERED_BYTES = 16 * 1024 * 1024


def parse_definition(
    text: str | bytes, file: str = "definition", *, max_bytes: int = MAX_DOCUMENT_BYTES
) -> JobDefinition:
    """Reads and checks a definition.

    With ``dynamic_template_tasks: true`` the document is a template: only the job's own keys are read,
    the result has no tasks.

    Raises:
        DefinitionError: with every mistake, each with its line, column, path and what would be right.
    """
    document = decode(text, file, max_bytes)
    if is_dynamic(document):
        return parse_head(document, file)
    return _parse(document, file, max_bytes)


def parse_rendered(text: str | bytes, file: str = "definition") -> JobDefinition:
    """Reads and checks the rendered text of a document with ``dynamic_template_tasks``.

    Raises:
        DefinitionError: with every mistake; lines are those of the rendered text.
    """
    return _parse(decode(text, file, MAX_RENDERED_BYTES), file, MAX_RENDERED_BYTES)


def _parse(document: str, file: str, max_bytes: int) -> JobDefinition:
    root, mistakes = read_document(document, file, max_bytes)
    problems = Problems(locator(root), mistakes)
    job = build_job(root, JOB_RECORD, document, problems)
    check_flow(job, root, problems)
    check_templates(job, problems)
    if problems:
        raise DefinitionError(problems.listed(), file)
    return job
