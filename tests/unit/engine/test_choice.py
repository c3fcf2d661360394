"""Which engine serves."""

from __future__ import annotations

import logging

import grpc
import pytest

from kourou_service.engine import create_engine, private_api


def test_the_grpcio_installed_here_carries_the_queue_engine() -> None:
    assert private_api.problem() is None
    assert create_engine().kind == "queue"
    assert create_engine("aio").kind == "aio"


@pytest.mark.parametrize("version", ["1.60.2", "1.99.0", "2.0.0.dev0"])
def test_an_untested_grpcio_falls_back_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    with caplog.at_level(logging.WARNING):
        assert create_engine("auto").kind == "aio"
    assert version in caplog.text
    with pytest.raises(RuntimeError, match=version):
        create_engine("queue")


def test_a_changed_private_api_falls_back(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def changed(_flags: int) -> private_api.Operation:
        raise TypeError("takes two arguments now")

    monkeypatch.setattr(private_api, "receive_message", changed)
    with caplog.at_level(logging.WARNING):
        assert create_engine("auto").kind == "aio"
    assert "two arguments" in caplog.text
