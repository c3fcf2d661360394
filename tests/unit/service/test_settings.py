"""One definition of a setting gives flag, variable, line of the file, default and help."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from kourou_namesrv.settings import NamesrvSettings
from kourou_service.listener import Listener
from kourou_service.settings import ServiceSettings, SettingsError, StringList


class Settings(ServiceSettings):
    command: ClassVar[str] = "example serve"

    scan_interval_s: float = Field(default=10.0, gt=0, description="How often to look, seconds.")
    names: StringList = Field(default=("a",), description="Some names.")
    eager: bool = Field(default=False, description="At once.")


def test_flags_win_over_the_environment_and_both_over_the_file(tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_text('scan_interval_s = 1\nnames = ["x", "y"]\neager = true\n')
    environ = {"KOUROU_EXAMPLE_CONFIG": str(file), "KOUROU_EXAMPLE_SCAN_INTERVAL_S": "2", "HOME": "/"}
    assert Settings.load([], {}) == Settings()
    from_both = Settings.load([], environ)
    assert (from_both.scan_interval_s, from_both.names, from_both.eager) == (2, ("x", "y"), True)
    from_all = Settings.load(["--scan-interval-s=3", "--names", "p,q", "--names", "r", "--eager", "false"], environ)
    assert (from_all.scan_interval_s, from_all.names, from_all.eager) == (3, ("p", "q", "r"), False)


@pytest.mark.parametrize(
    ("args", "environ", "named"),
    [
        (["--scan-interval-s", "soon"], {}, "scan_interval_s (--scan-interval-s)"),
        (["--scan-interval-s", "-1"], {}, "scan_interval_s (--scan-interval-s)"),
        (["--scan-intervall-s", "1"], {}, "--scan-intervall-s"),
        (["--scan-interval", "1"], {}, "--scan-interval"),
        (["--scan-interval-s"], {}, "--scan-interval-s"),
        (["stray"], {}, "stray"),
        ([], {"KOUROU_EXAMPLE_SCAN_INTERVAL_S": ""}, "KOUROU_EXAMPLE_SCAN_INTERVAL_S"),
        ([], {"KOUROU_EXAMPLE_NOPE": "1"}, "KOUROU_EXAMPLE_NOPE"),
        ([], {"KOUROU_EXAMPLE_eager": "1"}, "KOUROU_EXAMPLE_eager"),
        (["--log-level", "loud"], {}, "log_level"),
        (["--config", "/nowhere.toml"], {}, "/nowhere.toml"),
    ],
)
def test_what_is_unknown_or_malformed_is_named(args: list[str], environ: dict[str, str], named: str):
    with pytest.raises(SettingsError) as problem:
        Settings.load(args, environ)
    assert named in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("text", "named"), [("nope = 1", "nope"), ("names = 1", "names"), ("= 1", "TOML"), ("config = 'x'", "config")]
)
def test_so_it_is_in_the_file(tmp_path: Path, text: str, named: str):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=named):
        Settings.load(["--config", str(file)], {})


def test_the_environment_is_not_read_by_objects_built_in_code(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KOUROU_EXAMPLE_SCAN_INTERVAL_S", "2")
    assert Settings().scan_interval_s == 10


def test_help_shows_every_setting(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        NamesrvSettings.load(["--help"], {})
    assert exit_.value.code == 0
    shown = capsys.readouterr().out
    for name, field in NamesrvSettings.model_fields.items():
        assert "--" + name.replace("_", "-") in shown
        assert "KOUROU_NAMESRV_" + name.upper() in shown
        assert field.description
        assert field.description in shown
    assert "local=127.0.0.1:8081" in shown


def test_listeners_as_settings():
    both = "internal=0.0.0.0:8081/namesrv-1:8081,public=0.0.0.0:8082/localhost:8082"
    settings = NamesrvSettings.load(["--listeners", both], {})
    assert settings.listeners == tuple(map(Listener.parse, both.split(",")))
    assert NamesrvSettings.load([], {}).listeners == (
        Listener.parse("local=127.0.0.1:8081"),
        Listener.parse("local-tls=tls://127.0.0.1:8443"),
    )
    for wrong in ("local", "local=127.0.0.1", "a=127.0.0.1:1,a=127.0.0.1:2", "a=0.0.0.0:1", ""):
        with pytest.raises(SettingsError, match="listeners"):
            NamesrvSettings.load(["--listeners", wrong], {})
