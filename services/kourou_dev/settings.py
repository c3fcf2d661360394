"""The settings of `kourou dev`: few, since everything else keeps its default."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from kourou_service.tls.settings import TlsSettings


class DevSettings(TlsSettings):
    command: ClassVar[str] = "dev"

    # What is printed at the start is for a person; log lines only when something is wrong.
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="The least level to log.")
    data: Path = Field(Path("data"), description="The folder that holds the messages; made when missing.")
    port: int = Field(8081, ge=0, le=65535, description="Where clients connect (the access point); 0: a free one.")
    tls_port: int = Field(8443, ge=0, le=65535, description="The access point for clients with TLS; 0: a free one.")
    registration_port: int = Field(9876, ge=0, le=65535, description="Where brokers register; 0: a free one.")
    broker_port: int = Field(10911, ge=0, le=65535, description="Where clients reach the broker; 0: a free one.")
    broker_tls_port: int = Field(
        10921, ge=0, le=65535, description="Where clients with TLS reach the broker; 0: a free one."
    )
    metrics_port: int = Field(
        5557, ge=0, le=65535, description="Where /metrics and /health of all three services are; 0: a free one."
    )
    admin_port: int = Field(9080, ge=0, le=65535, description="Where the admin service listens; 0: a free one.")
