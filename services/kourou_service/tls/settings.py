"""The settings of services with TLS listeners."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from kourou_service.settings import ServiceSettings


def _parse_optional_path(value: object) -> object:
    return None if value == "" else value


OptionalPathSetting = Annotated[Path | None, BeforeValidator(_parse_optional_path)]
"""Empty for none."""


class TlsSettings(ServiceSettings):
    tls_certificate: OptionalPathSetting = Field(
        default=None,
        description="The certificate of the TLS listeners, with its chain: a PEM file, read again when it changes; "
        "none: a self-made one, for development.",
    )
    tls_key: OptionalPathSetting = Field(default=None, description="The key of tls_certificate: a PEM file.")
    tls_client_ca: OptionalPathSetting = Field(
        default=None,
        description="A PEM file with the CAs of clients; clients then need a certificate that one of them signed.",
    )
    tls_folder: OptionalPathSetting = Field(
        default=None,
        description="Where the CA of the self-made certificate is kept (ca.pem is what clients may trust); "
        "none: a broker has it in tls in its data folder, a NameServer in memory.",
    )
