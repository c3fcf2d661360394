"""The NameServer's settings."""

from typing import ClassVar

from pydantic import Field

from kourou_service.listener import (
    DEFAULT_NAME,
    DEFAULT_TLS_NAME,
    AddressSetting,
    HostPort,
    Listener,
    ListenersSetting,
    OptionalAddressSetting,
)
from kourou_service.settings import ClusterSetting
from kourou_service.tls.settings import TlsSettings


class NamesrvSettings(TlsSettings):
    command: ClassVar[str] = "namesrv"

    cluster: ClusterSetting = Field(default="kourou", description="The cluster's name, in metrics and traces.")
    listeners: ListenersSetting = Field(
        default=(
            Listener.parse(f"{DEFAULT_NAME}=127.0.0.1:8081"),
            Listener.parse(f"{DEFAULT_TLS_NAME}=tls://127.0.0.1:8443"),
        ),
        description="Where clients find their access point: name=[tls://]bind[/advertised], several separated by "
        "commas. A client is given the brokers' addresses of the listener with the same name.",
    )
    broker_listener: AddressSetting = Field(
        default=HostPort("127.0.0.1", 9876), description="Where brokers register, host:port."
    )
    fallback_listener: str = Field(
        default=DEFAULT_NAME,
        description="The listener whose brokers' addresses a client gets when it came by no known access point.",
    )
    forward_listener: str = Field(
        default="",
        description="The brokers' listener, a plaintext one, by which this NameServer itself reaches them; "
        "empty: the fallback listener.",
    )
    metrics_listen: OptionalAddressSetting = Field(
        default=HostPort("127.0.0.1", 5558), description="Where /metrics and /health are, host:port; empty: nowhere."
    )
    scan_interval_s: float = Field(default=10.0, gt=0, description="How often silent brokers are looked for, seconds.")
    eviction_s: float = Field(
        default=120.0, gt=0, description="A broker silent for longer than this is removed, seconds."
    )
    broken_stream_grace_s: float = Field(
        default=15.0,
        ge=0,
        description="How long after its stream broke a broker's queues stay open to writers, seconds.",
    )
    readiness_patience_s: float = Field(
        default=35.0,
        ge=0,
        description="How long after its start the NameServer waits at most for known brokers, seconds.",
    )
    forward_timeout_s: float = Field(
        default=3.0,
        gt=0,
        le=60,
        description="How long one broker may take to answer a call that is passed on to it, seconds.",
    )
    stop_grace_s: float = Field(
        # Shorter than elsewhere: what lasts here are calls that wait for news.
        default=0.5,
        ge=0,
        description="How long a stop waits for the calls that are running, seconds.",
    )
    max_forwarded_calls: int = Field(
        default=1024, ge=1, description="Calls passed on to brokers at one time; more are refused."
    )
    max_watchers: int = Field(
        default=100_000, ge=0, description="Clients waiting for a change of a route; more are refused."
    )
