"""The JSON Schema of the job language, made of the parser's own key tables, for editors and checks."""

from typing import Any

from formicary.model.parse_job import JOB_RECORD

Json = Any  # a JSON value


def json_schema() -> dict[str, Json]:
    """Returns the schema of a definition (draft 2020-12).

    It knows keys, kinds and words. What spans several keys (cycles, unknown targets, templates) only the parser sees.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Formicary job definition",
        "description": "A job: a directed acyclic graph of tasks.",
        **JOB_RECORD.schema(),
    }
