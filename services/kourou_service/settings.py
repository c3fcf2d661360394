"""Settings of a service: each is defined once, as a field, and read from flags > environment > TOML file > default.

A setting that nobody defined, or whose value does not fit, stops the service with the setting's name.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from kourou_service.process import UserError


class SettingsError(UserError):
    """A setting is unknown or malformed; the message names it and where it was read."""

    exit_code = 2


def split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


StringList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
"""Several values: separated by commas in flags and the environment, a list in the file."""
ClusterSetting = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$")]


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or not parts.port):
        raise ValueError(f"{url!r} is not http://host:port or https://host:port")
    return url


class ServiceSettings(BaseSettings):
    """What every service has. Subclasses set `command` and add fields, whose names end in their unit (_s, _bytes)."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, cli_kebab_case=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    command: ClassVar[str] = "service"
    """The service's command below `kourou`; also its part of the environment's prefix."""

    config: Path | None = Field(default=None, description="A TOML file with any of these settings (names with _).")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least level that is logged."
    )
    log_format: Literal["auto", "terminal", "json"] = Field(
        default="auto", description="How log lines look; auto: for people on a terminal, else JSON."
    )
    engine: Literal["auto", "queue", "aio"] = Field(
        default="auto", description="The server engine; auto: the completion queue, or grpc.aio where that cannot run."
    )
    metrics_max_series: int = Field(
        default=10_000, ge=1, description="Sets of labels shown of each metric; what is beyond is summed into `*`."
    )
    otlp_endpoint: Annotated[str, AfterValidator(_check_url)] = Field(
        default="",
        description="An OpenTelemetry collector that gets traces, such as http://collector:4317; empty: none.",
    )
    trace_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Part of the calls that is traced, of those whose caller has not decided."
    )
    stop_grace_s: float = Field(
        default=5.0, ge=0, description="How long a stop waits for the calls that are running, seconds."
    )

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # An object built in code (a test, `kourou dev`) is what the code says; only load() reads the outside.
        return (init_settings,)

    @classmethod
    def load(cls, args: Sequence[str], environ: Mapping[str, str] | None = None) -> Self:
        """Reads flags, the environment (default: the process's) and the file they name. `--help` prints and exits.

        Raises SettingsError with one line that names the setting.
        """
        if "-h" in args or "--help" in args:
            print(cls.help())
            raise SystemExit(0)
        flags = cls._from_flags(args)
        variables = cls._from_environment(os.environ if environ is None else environ)
        config = flags.get("config") or variables.get("config")
        file = cls._from_file(Path(config)) if config else {}
        try:
            return cls.model_validate({**file, **variables, **flags})
        except ValidationError as problem:
            first = problem.errors()[0]
            name = str(first["loc"][0])
            source = cls.flag(name) if name in flags else cls.variable(name) if name in variables else config
            raise SettingsError(f"setting {name} ({source}): {_reason(first)}") from None

    @classmethod
    def flag(cls, name: str) -> str:
        return "--" + name.replace("_", "-")

    @classmethod
    def prefix(cls) -> str:
        return f"KOUROU_{cls.command.split()[0].upper()}_"

    @classmethod
    def variable(cls, name: str) -> str:
        return cls.prefix() + name.upper()

    @classmethod
    def help(cls) -> str:
        lines = [f"usage: kourou {cls.command} [--setting VALUE ...]", ""]
        lines.append(f"Each setting is a flag, a variable of the environment ({cls.prefix()}...) or a line of the file")
        lines.append("that --config names; flags win over the environment, and both over the file.")
        for name, field in cls.model_fields.items():
            lines += ["", f"  {cls.flag(name)} VALUE   {cls.variable(name)}   (default: {_shown(field.default)})"]
            lines += [f"      {field.description}"]
        return "\n".join(lines)

    @classmethod
    def _from_flags(cls, args: Sequence[str]) -> dict[str, Any]:
        parser = _OneLineParser(add_help=False, allow_abbrev=False)
        return dict(CliSettingsSource[_OneLineParser](cls, cli_parse_args=list(args), root_parser=parser)())

    @classmethod
    def _from_environment(cls, environ: Mapping[str, str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for variable in sorted(environ):
            if not variable.startswith(cls.prefix()):
                continue
            name = variable.removeprefix(cls.prefix()).lower()
            if name not in cls.model_fields or variable != cls.variable(name):
                raise SettingsError(f"unknown setting {variable} in the environment")
            values[name] = environ[variable]
        return values

    @classmethod
    def _from_file(cls, path: Path) -> dict[str, Any]:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as problem:
            raise SettingsError(f"setting config: cannot read {path}: {problem.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
            raise SettingsError(f"setting config: {path} is not TOML: {problem}") from None
        for name in values:
            if name not in cls.model_fields or name == "config":
                raise SettingsError(f"unknown setting {name} in {path}")
        return values


class _OneLineParser(argparse.ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message} (--help lists the settings)")


def _reason(error: Any) -> str:
    reason = str(error["msg"]).removeprefix("Value error, ")
    return f"{reason}, not {error['input']!r}" if error["type"] != "value_error" else reason


def _shown(default: object) -> str:
    if default is None or default in ((), ""):
        return "none"
    if isinstance(default, tuple):
        return ",".join(str(part) for part in default)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(default)
