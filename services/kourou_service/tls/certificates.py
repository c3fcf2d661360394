"""The certificate of one service's TLS listeners, which may change while it serves."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
import structlog

from kourou_service.listener import WILDCARDS, Listener
from kourou_service.metrics.family import Family, gauge
from kourou_service.process import UserError
from kourou_service.settings import SettingsError
from kourou_service.tls.identity import Identity, IdentityFiles, read_client_ca
from kourou_service.tls.self_made import Authority
from kourou_service.tls.settings import TlsSettings

_logger = structlog.stdlib.get_logger("kourou_service")

LOOK_INTERVAL_S = 1.0
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

# grpcio has no types.
_configuration: Callable[..., Any] = grpc.ssl_server_certificate_configuration
_dynamic_credentials: Callable[..., grpc.ServerCredentials] = grpc.dynamic_ssl_server_credentials


class Certificates:
    """Of no use, and no cost, for a service without TLS listeners.

    The user's files are looked at every second. New ones serve the connections that come from then on; while what is
    there cannot be used, the old certificate stays.
    """

    def __init__(self, settings: TlsSettings, listeners: Sequence[Listener], folder: Path | None) -> None:
        """`folder` keeps the CA of a self-made certificate, where the settings name none; None: it is in memory.
        Raises UserError and OSError."""
        self._listeners = [listener for listener in listeners if listener.tls]
        self._files = _files_of(settings)
        self._seen = self._files.version() if self._files is not None else ()
        self._looking: asyncio.Task[None] | None = None
        if self._listeners:
            self._take(self._files.read() if self._files is not None else self._self_made(settings, folder))

    def credentials(self, listener: Listener) -> grpc.ServerCredentials | None:
        """What the engine's `listen` wants; None for a plaintext listener."""
        if not listener.tls:
            return None
        given = self._configuration

        def newest() -> Any:
            """Asked by gRPC, in a thread of its own, at every new connection; None is no change."""
            nonlocal given
            if given is self._configuration:
                return None
            given = self._configuration
            return given

        return _dynamic_credentials(given, newest, self._identity.client_ca is not None)

    def start(self) -> None:
        """Changes of the files are noticed from now on."""
        if self._files is not None and self._listeners:
            self._looking = asyncio.create_task(self._keep_looking(self._files))

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    async def collect(self) -> list[Family]:
        return [
            gauge(
                "kourou_tls_certificate_expiry_timestamp_seconds",
                "When the certificate of the TLS listener ends, Unix time.",
                {(listener.name,): self._identity.expires_s for listener in self._listeners},
                ["listener"],
            )
        ]

    async def _keep_looking(self, files: IdentityFiles) -> None:
        looked = self._seen
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            before, looked = looked, files.version()
            # Twice the same: nobody is in the middle of replacing them.
            if looked != self._seen and looked == before:
                self._seen = looked
                await self._reload(files)

    async def _reload(self, files: IdentityFiles) -> None:
        try:
            self._take(await asyncio.to_thread(files.read))
        except UserError as problem:
            _logger.error("the new TLS certificate cannot be used, the old one stays", reason=str(problem))
        except Exception:
            _logger.exception("reading the new TLS certificate failed, the old one stays")
        else:
            _logger.info("a new TLS certificate is used", expires_s=self._identity.expires_s)

    def _take(self, identity: Identity) -> None:
        self._identity = identity
        self._configuration = _configuration([(identity.key, identity.certificate)], identity.client_ca)

    def _self_made(self, settings: TlsSettings, folder: Path | None) -> Identity:
        folder = settings.tls_folder or folder
        client_ca = None if settings.tls_client_ca is None else read_client_ca(settings.tls_client_ca)
        # A folder that was set is a decision, and no news for whoever took it.
        tell = _logger.warning if settings.tls_folder is None else _logger.info
        tell(
            "TLS with a self-made certificate, for development only: set tls_certificate and tls_key",
            listeners=[listener.name for listener in self._listeners],
            ca=str(folder / "ca.pem") if folder is not None else "in memory",
        )
        authority = Authority.make() if folder is None else Authority.kept_in(folder)
        return authority.issue(_hosts(self._listeners), client_ca)


def _files_of(settings: TlsSettings) -> IdentityFiles | None:
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        missing = "tls_key" if settings.tls_key is None else "tls_certificate"
        raise SettingsError(f"setting {missing}: tls_certificate and tls_key belong together, and this one is missing")
    return IdentityFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def _hosts(listeners: Iterable[Listener]) -> list[str]:
    """By which clients may name a process with these listeners."""
    hosts = [host for listener in listeners for host in (listener.bind.host, listener.advertised.host)]
    return [host for host in dict.fromkeys((*_LOCAL_HOSTS, *hosts)) if host not in WILDCARDS]
