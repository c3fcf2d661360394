"""The group of all commands: it turns errors into one line, and finds the commands that other distributions add."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from kourou.cli.errors import CommandError
from kourou.errors import KourouError

PLUGIN_GROUP = "kourou.commands"
# Known by name, so that a user of the library alone learns where they are.
_SERVER_COMMANDS = frozenset({"dev", "namesrv", "broker", "admin", "log"})


class RootGroup(TyperGroup):
    """Commands of entry points in the group `kourou.commands` are loaded when they are needed, not before."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return own + sorted(name for name in _plugins() if name not in own)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        plugin = plugin_command(cmd_name)
        if plugin is not None:
            return plugin
        if cmd_name in _SERVER_COMMANDS:
            raise _fail(f"the command {cmd_name!r} comes with the distribution kourou-server: install that")
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """`kourou broker list` is ours; `kourou broker`, with flags or without, runs one and is the plug-in's."""
        name, rest = args[0], args[1:]
        plugin = _plugins().get(name)
        runs_plugin = not rest or (rest[0].startswith("-") and rest[0] not in ctx.help_option_names)
        if plugin is not None and name in self.commands and runs_plugin:
            return name, _load(plugin), rest
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CommandError, KourouError) as error:
            raise _fail(str(error)) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise _fail(f"{where}{error.strerror or error}") from None


def plugin_command(name: str) -> Any:
    """The command of that name which another distribution adds; None where it is not installed."""
    plugin = _plugins().get(name)
    return None if plugin is None else _load(plugin)


def warn(message: str) -> None:
    _say("warning", message)


def _fail(message: str) -> typer.Exit:
    _say("error", message)
    return typer.Exit(1)


def _say(kind: str, message: str) -> None:
    style = "bold red" if kind == "error" else "yellow"
    Console(file=sys.stderr, soft_wrap=True, highlight=False).print(f"[{style}]{kind}:[/] ", end="")
    print(message, file=sys.stderr)


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGIN_GROUP)}


def _load(plugin: EntryPoint) -> Any:
    """Its command; one broken plug-in must not take the others, or the help, with it."""
    try:
        command = typer.main.get_command(plugin.load())
    except Exception as error:
        command = _broken(plugin.name, f"{type(error).__name__}: {error}")
    command.name = plugin.name
    return command


def _broken(name: str, reason: str) -> Any:
    app = typer.Typer(add_completion=False)

    @app.command(name, help=f"(cannot be loaded: {reason})", context_settings={"ignore_unknown_options": True})
    def broken(args: list[str] = typer.Argument(default=None, hidden=True)) -> None:  # pyright: ignore[reportUnusedFunction]  # noqa: B008
        raise CommandError(f"the command {name!r} cannot be loaded: {reason}")

    return typer.main.get_command(app)
