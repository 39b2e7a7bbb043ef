"""``formicary definition …``: check, upload and look at job definitions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from formicary.cli import options

if TYPE_CHECKING:
    from formicary.model.definition import JobDefinition

app = typer.Typer(rich_markup_mode=None, help="Check, upload and look at job definitions.", no_args_is_help=True)

_DEFINITIONS = "/api/v1/definitions"

File = Annotated[str, typer.Argument(metavar="FILE", help="YAML file; - is stdin.")]


@app.command()
def lint(file: File, output: options.OutputOption = options.Output.TEXT) -> int:
    """Check a definition without a server; exits 2 if it has mistakes."""
    from formicary.cli.files import read_text
    from formicary.cli.output import print_json, print_text
    from formicary.errors import DefinitionError
    from formicary.model.lint import lint as warnings_of
    from formicary.model.parse import parse_definition

    try:
        definition = parse_definition(read_text(file), file)
    except DefinitionError as error:
        if output is options.Output.TEXT:
            raise
        print_json({"file": file, "errors": _documents(error.problems), "warnings": []})
        return 2
    warnings = warnings_of(definition)
    if output is options.Output.JSON:
        print_json({"file": file, "errors": [], "warnings": _documents(warnings)})
        return 0
    for warning in warnings:
        print_text("warning: " + warning.text(file))
    print_text(f"{file}: {definition.job_type}, {len(definition.tasks)} tasks, no mistakes")
    return 0


@app.command()
def apply(
    file: File,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """Upload a definition; a changed one makes a new version."""
    from formicary.cli.client import connect
    from formicary.cli.files import read_text
    from formicary.cli.output import print_text
    from formicary.errors import DefinitionError

    text = read_text(file)
    try:
        answer = connect(server, token).post(_DEFINITIONS, text.encode(), "application/yaml")
    except DefinitionError as error:
        raise DefinitionError(error.problems, file) from error
    if output is options.Output.JSON:
        print_text(answer.text())
        return
    saved = answer.json()
    print_text(f"{saved['job_type']} v{saved['version']} {'created' if answer.status == 201 else 'unchanged'}")


@app.command("list")
def list_definitions(
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the former page ended.")] = None,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """List job types."""
    from formicary.cli.client import connect
    from formicary.cli.output import print_table, print_text

    answer = connect(server, token).get(_DEFINITIONS, {"limit": limit, "cursor": cursor})
    if output is options.Output.JSON:
        print_text(answer.text())
        return
    page = answer.json()
    rows = [(item["job_type"], str(item["version"]), item["created_at"][:19] + "Z") for item in page["items"]]
    print_table(("JOB TYPE", "VERSION", "CREATED"), rows)
    if page["next_cursor"]:
        print_text(f"more: --cursor {page['next_cursor']}")


@app.command()
def show(
    job_type: Annotated[str, typer.Argument(help="Job type.")],
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """Show the newest version of a job type: its YAML."""
    from formicary.cli.client import connect, quoted
    from formicary.cli.output import print_text

    answer = connect(server, token).get(f"{_DEFINITIONS}/{quoted(job_type)}")
    print_text(answer.text() if output is options.Output.JSON else answer.json()["source"].rstrip("\n"))


@app.command()
def graph(
    file: File,
    form: Annotated[str, typer.Option("--format", help="mermaid, dot or text.")] = "mermaid",
    output: options.OutputOption = options.Output.TEXT,
) -> None:
    """Print a definition's graph; as JSON, its nodes and edges."""
    from formicary.cli.files import read_text
    from formicary.cli.graph import drawn, edges_of
    from formicary.cli.output import print_json, print_text
    from formicary.model.parse import parse_definition

    definition: JobDefinition = parse_definition(read_text(file), file)
    if output is options.Output.TEXT:
        print_text(drawn(definition, form))
        return
    edges = [{"from": edge.source, "to": edge.target, "kind": edge.kind} for edge in edges_of(definition)]
    print_json(
        {"job_type": definition.job_type, "nodes": [task.task_type for task in definition.tasks], "edges": edges}
    )


@app.command()
def schema() -> None:
    """Print the JSON Schema of the job language, for editors."""
    from formicary.cli.output import print_json
    from formicary.model.schema import json_schema

    print_json(json_schema())


def _documents(problems: Sequence[object]) -> object:
    import msgspec

    return msgspec.to_builtins(list(problems))
