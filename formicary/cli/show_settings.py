"""``formicary settings``."""

import typer

from formicary.cli import options


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command("settings")(show)


def show(output: options.OutputOption = options.Output.TEXT) -> None:
    """Show the effective settings, secrets hidden."""
    from formicary import settings
    from formicary.cli.output import print_json, print_table
    from formicary.cli.unknown import load

    shown = load().public()
    if output is options.Output.JSON:
        print_json(shown)
        return
    meanings = {variable.name: variable.meaning for variable in settings.VARIABLES}
    rows = [(name, "" if value is None else str(value), meanings[name]) for name, value in shown.items()]
    print_table(("VARIABLE", "VALUE", "MEANING"), rows)
