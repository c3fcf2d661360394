"""The admin service's settings."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from kourou_admin.messages import SEARCH_TIMEOUT_S
from kourou_service.listener import AddressSetting, HostPort, OptionalAddressSetting, TargetsSetting
from kourou_service.settings import ClusterSetting, ServiceSettings


class AdminSettings(ServiceSettings):
    command: ClassVar[str] = "admin serve"

    cluster: ClusterSetting = Field("kourou", description="The cluster's name, in metrics and traces.")
    listen: AddressSetting = Field(HostPort("127.0.0.1", 9080), description="Where the service listens, host:port.")
    namesrv: TargetsSetting = Field(
        ("127.0.0.1:8081",),
        min_length=1,
        description="The NameServers, host:port; a name stands for all its addresses.",
    )
    metrics_listen: OptionalAddressSetting = Field(
        HostPort("127.0.0.1", 5559), description="Where /metrics and /health are, host:port; empty: nowhere."
    )
    call_timeout_s: float = Field(
        3.0, gt=0, le=60, description="How long one NameServer or broker may take for an answer, seconds."
    )
    search_timeout_s: float = Field(
        SEARCH_TIMEOUT_S, gt=0, le=600, description="How long a broker may take to look for messages, seconds."
    )
    max_calls: int = Field(64, ge=1, description="Calls under way at one time; more are refused.")
    level_interval_s: float = Field(
        30.0, gt=0, description="How often brokers that missed a change of a topic or group get it, seconds."
    )
