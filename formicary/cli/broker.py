"""``formicary broker check``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from formicary.cli import options

if TYPE_CHECKING:
    from brokers.base import Durability
    from brokers.probe import Findings, Step, Times

app = typer.Typer(rich_markup_mode=None, help="Look at the message broker.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at the message broker."""


@app.command("check")
def check(
    url: Annotated[
        str | None, typer.Argument(help="Broker; default: FORMICARY_BROKER_URL.", show_default=False)
    ] = None,
    output: options.OutputOption = options.Output.TEXT,
) -> int:
    """Prove a broker end to end, on topics of its own that it removes, and measure round trips."""
    from brokers.errors import UnknownBrokerError
    from brokers.probe import Findings, probe
    from brokers.registry import make_broker
    from formicary import log, settings
    from formicary.cli.output import print_json
    from formicary.cli.serving import run_loop
    from formicary.cli.unknown import load

    log.configure("error", None)
    url = load().broker_url if url is None else url
    is_text = output is options.Output.TEXT
    shown = settings.hide_secrets(url)
    if is_text:
        typer.echo(shown)
    try:
        broker = make_broker(url)
    except UnknownBrokerError as exc:
        findings = Findings(error=str(exc))
    else:
        findings = run_loop(probe(broker, _print_step if is_text else _ignore))
    if is_text:
        _print_findings(findings)
    else:
        print_json(_document(shown, findings))
    if findings.error is not None:
        typer.echo(f"formicary: {findings.error}", err=True)
    return 0 if findings.error is None else 1


def _ignore(step: "Step") -> None:
    del step


def _print_step(step: "Step") -> None:
    typer.echo(f"  ok    {step.name:12} {step.duration_s * 1000:8.1f} ms  {step.claim}")


def _print_findings(findings: "Findings") -> None:
    for setting in findings.durability:
        typer.echo(f"  {'ok  ' if setting.is_met else 'warn'}  {_setting_text(setting)}")
    for topic in findings.left_behind:
        typer.echo(f"  warn  topic {topic} could not be removed: the user may not, or the server was lost")
    for name, times in (("publish", findings.publish), ("round trip", findings.round_trip)):
        if times is not None:
            typer.echo(
                f"{name}: p50 {times.p50_s * 1000:.2f} ms, p99 {times.p99_s * 1000:.2f} ms of {times.sample_count}"
            )


def _setting_text(setting: "Durability") -> str:
    if setting.is_met:
        return f"{setting.setting} is {setting.value or 'not told, and by default as wanted'}"
    value = "not told to this user" if setting.value is None else setting.value
    return f"{setting.setting} is {value}, wanted {setting.wanted}: otherwise {setting.risk}"


def _document(url: str, findings: "Findings") -> dict[str, Any]:
    return {
        "url": url,
        "is_ok": findings.error is None,
        "error": findings.error,
        "steps": [
            {"name": step.name, "claim": step.claim, "duration_ms": _milliseconds(step.duration_s)}
            for step in findings.steps
        ],
        "publish_ms": _times_document(findings.publish),
        "round_trip_ms": _times_document(findings.round_trip),
        "durability": [setting._asdict() for setting in findings.durability],
        "left_behind": findings.left_behind,
    }


def _times_document(times: "Times | None") -> dict[str, float] | None:
    if times is None:
        return None
    return {"count": times.sample_count, "p50": _milliseconds(times.p50_s), "p99": _milliseconds(times.p99_s)}


def _milliseconds(duration_s: float) -> float:
    return round(duration_s * 1000, 3)
