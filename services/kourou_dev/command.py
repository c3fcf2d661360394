"""`kourou dev`, added to the `kourou` command by an entry point."""

import typer

from kourou_dev.__main__ import main

app = typer.Typer(add_completion=False)


@app.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
def dev(args: list[str] = typer.Argument(default=None, metavar="[--setting VALUE ...]")) -> None:  # noqa: B008
    """Run a whole cluster here, in one process, with its data in a folder; --help lists its settings."""
    raise typer.Exit(main(args or []))
