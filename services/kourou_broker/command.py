"""`kourou broker`, added to the `kourou` command by an entry point."""

import typer

from kourou_broker.__main__ import main

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
def broker(args: list[str] = typer.Argument(default=None, metavar="[--setting VALUE ...]")) -> None:  # noqa: B008
    """Run a broker; --help lists its settings."""
    raise typer.Exit(main(args or []))
