from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import typer

from kourou.cli import root
from kourou.cli.root import PLUGIN_GROUP
from tests.unit.cli.conftest import Command

extra = typer.Typer()
serve = typer.Typer()


@extra.command()
def say(word: str) -> None:
    """Says a word."""
    print(f"said {word}")


@serve.command(context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False)
def run(args: list[str] = typer.Argument(default=None)) -> None:  # noqa: B008
    """Runs a broker."""
    print(f"running with {args or []}")


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        name: EntryPoint(name, f"{__name__}:{value}", PLUGIN_GROUP)
        for name, value in (("extra", "extra"), ("broker", "serve"), ("broken", "missing"))
    }
    monkeypatch.setattr(root, "_plugins", lambda: points)


@pytest.mark.usefixtures("plugins")
def test_a_plugin_is_a_command(kourou: Command) -> None:
    assert kourou.ok("extra", "yes") == "said yes\n"
    assert "Says a word" in kourou.ok("--help")


@pytest.mark.usefixtures("plugins")
def test_a_broken_plugin_is_told_and_harms_no_other(kourou: Command) -> None:
    assert "cannot be loaded" in kourou.ok("--help")
    result = kourou("broken", "--whatever", "x")
    assert result.exit_code == 1
    assert "the command 'broken' cannot be loaded: AttributeError" in result.stderr


@pytest.mark.usefixtures("plugins")
def test_a_plugin_beside_a_group_of_the_same_name(kourou: Command) -> None:
    assert kourou.ok("broker", "--name", "b") == "running with ['--name', 'b']\n"
    assert kourou.ok("broker") == "running with []\n"
    assert "broker-a" in kourou.ok("broker", "list")
    assert "Take a broker's permissions away" in kourou.ok("broker", "--help")
    assert kourou("broker", "nonsense").exit_code == 2


def test_commands_of_the_server_say_where_they_are(kourou: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "_plugins", dict)
    result = kourou("dev")
    assert result.exit_code == 1
    assert "kourou-server" in result.stderr
