"""`kourou admin serve`, added to the `kourou` command by an entry point."""

from __future__ import annotations

import typer

from kourou_admin.__main__ import main

app = typer.Typer(help="The admin service.", no_args_is_help=True, add_completion=False)


@app.callback()
def admin() -> None:
    """The admin service."""


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
def serve(args: list[str] = typer.Argument(default=None, metavar="[--setting VALUE ...]")) -> None:  # noqa: B008
    """Run the admin service; --help lists its settings."""
    raise typer.Exit(main(args or []))
