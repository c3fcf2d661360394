"""What `docker compose up` starts, and how it is locked in."""

import asyncio

import pytest

from tests.cluster.waiting import eventually
from tests.compose.container import Container
from tests.compose.stack import SERVICES, Stack

OURS = [service for service in SERVICES if service not in ("prometheus", "grafana")]


async def test_everything_is_healthy(stack: Stack) -> None:
    """From one command and without any order of starting; and soon again, after what other tests did to it."""

    def all_are_healthy() -> bool:
        health = {container.service: container.health for container in stack.containers()}
        assert health == dict.fromkeys(SERVICES, "healthy")
        return True

    await eventually(lambda: asyncio.to_thread(all_are_healthy), 20, interval_s=1)


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_can_do_no_more_than_it_must(stack: Stack, service: str) -> None:
    container = stack.container(service)
    facts = container.inspect()
    host = facts["HostConfig"]
    assert facts["Config"]["User"] not in ("", "0", "root"), "it runs as root"
    assert container.exec("id", "-u").strip() != "0"
    assert host["ReadonlyRootfs"], "its root file system can be written"
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0, "its memory has no limit"
    assert not host["Privileged"]
    assert _published(container) <= {"127.0.0.1"}, "it is published to others than this host"


@pytest.mark.parametrize("service", OURS)
def test_nothing_can_be_written_but_data_and_tmp(stack: Stack, service: str) -> None:
    container = stack.container(service)
    writable = ["/tmp", "/data"] if service.startswith("broker") else ["/tmp"]
    for folder in ("/", "/opt/kourou", "/etc", "/tmp", "/data"):
        done = container.exec(
            "sh", "-c", f"echo x 2>/dev/null >{folder}/written && rm {folder}/written && echo yes || true"
        )
        assert (done.strip() == "yes") == (folder in writable), f"{folder} of {service}: {done!r}"


def test_the_image_is_small(stack: Stack) -> None:
    """What it adds to the one that it is made from, as the README has it."""
    size_mib = int(stack.container("admin").exec("du", "-sm", "/opt/kourou").split()[0])
    assert 50 < size_mib < 140


def test_the_image_holds_no_tools_to_build_with(stack: Stack) -> None:
    container = stack.container("admin")
    for tool in ("gcc", "git", "curl"):
        assert not container.exec("sh", "-c", f"command -v {tool} || true")
    assert container.exec("python", "-c", "import importlib.util as u; print(u.find_spec('pip'))").strip() == "None"


@pytest.mark.parametrize("service", ["namesrv-a", "broker-a", "admin"])
def test_a_stop_is_clean(stack: Stack, service: str) -> None:
    """The service hears of it, and ends by itself within its time."""
    container = stack.container(service)
    container.stop()
    assert container.inspect()["State"]["ExitCode"] == 0
    container.start()


def _published(container: Container) -> set[str]:
    ports = container.inspect()["NetworkSettings"]["Ports"]
    return {binding["HostIp"] for bindings in ports.values() for binding in bindings or ()}
