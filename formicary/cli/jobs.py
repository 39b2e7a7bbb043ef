"""``formicary job …``: what people do with jobs of a running server."""

from typing import TYPE_CHECKING, Annotated

import typer

from formicary.cli import options

if TYPE_CHECKING:
    from formicary.cli.client import Answer, Client

app = typer.Typer(rich_markup_mode=None, help="Submit, watch and steer jobs.", no_args_is_help=True)

_JOBS = "/api/v1/jobs"
#: How long one request of a wait stays open, in seconds.
_WAIT_S = 30.0

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.")]


@app.command()
def submit(
    *,
    job_type: Annotated[str, typer.Argument(help="Job type; its definition was applied before.")],
    param: options.ParamsOption = None,
    version: Annotated[int | None, typer.Option("--version", help="Version; default: the newest.")] = None,
    priority: Annotated[int | None, typer.Option("--priority", help="Higher first.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Not before: 2030-01-31T06:00:00Z")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Repeatable.")] = None,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="Submit once, however often repeated.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end.")] = False,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> int:
    """Submit a job."""
    import json

    from formicary.cli.client import connect

    wanted = {"job_type": job_type, "version": version, "priority": priority, "scheduled_at": at}
    body: dict[str, object] = {name: value for name, value in wanted.items() if value is not None}
    body |= {"params": options.params_of(param), "labels": options.labels_of(label)}
    client = connect(server, token)
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = client.post(_JOBS, json.dumps(body).encode(), headers=headers)
    if wait:
        return _wait(client, answer.json()["id"], None, output)
    return _show(answer, output, brief=True)


@app.command("list")
def list_jobs(
    *,
    state: Annotated[str | None, typer.Option("--state", help="Of this state only.")] = None,
    job_type: Annotated[str | None, typer.Option("--job-type", help="Of this job type only.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Where the former page ended.")] = None,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """List jobs, newest first."""
    from formicary.cli.client import connect
    from formicary.cli.output import print_table, print_text

    query = {"state": state, "job_type": job_type, "limit": limit, "cursor": cursor}
    answer = connect(server, token).get(_JOBS, query)
    if output is options.Output.JSON:
        print_text(answer.text())
        return
    page = answer.json()
    rows = [
        (job["id"], job["job_type"], str(job["version"]), job["state"], job["created_at"][:19] + "Z", _why(job))
        for job in page["items"]
    ]
    print_table(("ID", "JOB TYPE", "VERSION", "STATE", "CREATED", "NOTE"), rows)
    if page["next_cursor"]:
        print_text(f"more: --cursor {page['next_cursor']}")


@app.command()
def show(
    job_id: JobId,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """Show a job and its tasks."""
    from formicary.cli.client import connect, quoted

    _show(connect(server, token).get(f"{_JOBS}/{quoted(job_id)}"), output)


@app.command()
def wait(
    job_id: JobId,
    timeout_s: Annotated[float | None, typer.Option("--timeout-s", min=0, help="Give up after this long.")] = None,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> int:
    """Wait for the end of a job; exits 0 only if it is COMPLETED."""
    from formicary.cli.client import connect

    return _wait(connect(server, token), job_id, timeout_s, output)


@app.command()
def logs(
    *,
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    task: Annotated[str | None, typer.Option("--task", help="Of this task only.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Of this attempt only.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="Only the last so many lines.")] = None,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """Print the output of a job's tasks."""
    import json

    from formicary.cli.client import connect, quoted
    from formicary.cli.output import print_text

    query = {"task_type": task, "attempt": attempt, "follow": 1 if follow else None, "tail": tail}
    lines = connect(server, token).lines(f"{_JOBS}/{quoted(job_id)}/logs", query)
    if output is options.Output.JSON:
        separator = "["
        for line in lines:
            print_text(separator + line.decode().rstrip("\n"))
            separator = ","
        print_text("[]" if separator == "[" else "]")
        return
    for line in lines:
        record = json.loads(line)
        print_text(record["text"] if task is not None else f"{record['task_type']} | {record['text']}")


@app.command()
def cancel(
    job_id: JobId,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """Cancel a job; a second time also stops its always_run tasks."""
    _command("cancel", job_id, b"", output, server, token)


@app.command()
def pause(
    job_id: JobId,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """Pause a job: nothing new starts."""
    _command("pause", job_id, b"", output, server, token)


@app.command()
def resume(
    job_id: JobId,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """Resume a paused job."""
    _command("resume", job_id, b"", output, server, token)


@app.command()
def restart(
    job_id: JobId,
    everything: Annotated[bool, typer.Option("--all", help="All tasks anew, not only what failed.")] = False,
    from_task: Annotated[str | None, typer.Option("--from-task", help="This task and all downstream.")] = None,
    output: options.OutputOption = options.Output.TEXT,
    server: options.ServerOption = None,
    token: options.TokenOption = None,
) -> None:
    """Restart an ended job; what completed is reused."""
    import json

    body = {"mode": "all" if everything else "failed", "from_task": from_task}
    _command("restart", job_id, json.dumps(body).encode(), output, server, token)


def _command(
    verb: str, job_id: str, body: bytes, output: options.Output, server: str | None, token: str | None
) -> None:
    from formicary.cli.client import connect, quoted

    _show(connect(server, token).post(f"{_JOBS}/{quoted(job_id)}/{verb}", body), output, brief=True)


def _wait(client: "Client", job_id: str, timeout_s: float | None, output: options.Output) -> int:
    import time

    from formicary.cli.client import quoted
    from formicary.errors import ConflictError

    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        left_s = _WAIT_S if give_up_at is None else max(0.0, min(_WAIT_S, give_up_at - time.monotonic()))
        answer = client.get(f"{_JOBS}/{quoted(job_id)}", {"wait_s": left_s}, left_s)
        state = answer.json()["state"]
        if state in ("COMPLETED", "FAILED", "CANCELLED"):
            _show(answer, output, brief=True)
            return 0 if state == "COMPLETED" else 1
        if give_up_at is not None and time.monotonic() >= give_up_at:
            raise ConflictError(f"job {job_id} is still {state} after {timeout_s:g} s")


def _show(answer: "Answer", output: options.Output, *, brief: bool = False) -> int:
    from formicary.cli.output import print_table, print_text

    if output is options.Output.JSON:
        print_text(answer.text())
        return 0
    job = answer.json()
    note = _why(job)
    print_text(f"{job['id']}  {job['job_type']} v{job['version']}  {job['state']}" + (f"  {note}" if note else ""))
    if not brief:
        rows = [
            (task["task_type"], task["state"], str(task["attempt"]), _exit(task), task["ant_id"] or "", _note(task))
            for task in job["tasks"]
        ]
        print_table(("TASK", "STATE", "ATTEMPT", "EXIT", "ANT", "NOTE"), rows)
    return 0


def _exit(task: "dict[str, object]") -> str:
    return "" if task["exit_code"] is None else str(task["exit_code"])


def _note(task: "dict[str, object]") -> str:
    """Returns why the task is where it is, whose result it took, or what its cache did."""
    cache, source = task.get("cache"), task.get("reused_from")
    if isinstance(source, dict):
        return f"taken from job {source['job_id']}, attempt {source['attempt']}"
    return _why(task) or (_cache_note(cache) if isinstance(cache, dict) else "")


def _cache_note(cache: "dict[str, object]") -> str:
    words = f"cache {cache['result']}"
    if cache["restored_bytes"] is not None:
        words += f", {cache['restored_bytes']} bytes of {cache['restored_key']}"
    if cache["stored_bytes"] is not None:
        words += f", stored {cache['stored_bytes']} bytes"
    return words + (f"; {cache['problem']}" if cache["problem"] else "")


def _why(item: "dict[str, object]") -> str:
    return str(item["error_message"] or item["waiting_for"] or ("cancelling" if item.get("cancelling") else ""))
