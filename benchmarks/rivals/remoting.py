"""The few commands of RocketMQ's own protocol that its admin tool sends, without a Java machine for each of them."""

import json
import socket
import struct
from typing import Any

_CREATE_TOPIC = 17
_CREATE_GROUP = 200
_ROUTE_OF_TOPIC = 105
_CLUSTER_INFO = 106
_SUCCESS = 0
_READ_WRITE = 6
_TIMEOUT_S = 10.0


class RemotingError(Exception):
    """The server answered that it did not do it."""


def create_topic(broker: str, name: str, queues: int) -> None:
    """Raises RemotingError."""
    fields = {
        "topic": name,
        "defaultTopic": "TBW102",
        "readQueueNums": queues,
        "writeQueueNums": queues,
        "perm": _READ_WRITE,
        "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": 0,
        "order": "false",
        "attributes": "+message.type=NORMAL",
    }
    code, remark, _ = _ask(broker, _CREATE_TOPIC, fields)
    if code != _SUCCESS:
        raise RemotingError(f"{broker} did not create topic {name}: {remark}")


def create_group(broker: str, name: str) -> None:
    """With default settings. Raises RemotingError."""
    code, remark, _ = _ask(broker, _CREATE_GROUP, {}, json.dumps({"groupName": name}).encode())
    if code != _SUCCESS:
        raise RemotingError(f"{broker} did not create group {name}: {remark}")


def has_route(namesrv: str, topic: str) -> bool:
    return _ask(namesrv, _ROUTE_OF_TOPIC, {"topic": topic})[0] == _SUCCESS


def registered(namesrv: str, cluster: str) -> bool:
    """A broker of that cluster is known there."""
    _code, _remark, body = _ask(namesrv, _CLUSTER_INFO, {})
    return cluster.encode() in body


def _ask(address: str, code: int, fields: dict[str, Any], body: bytes = b"") -> tuple[int, str, bytes]:
    """-> the answer's code, remark and body."""
    header = {"code": code, "language": "JAVA", "version": 0, "opaque": 1, "flag": 0, "extFields": fields}
    data = json.dumps(header).encode()
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">II", 4 + len(data) + len(body), len(data)) + data + body)
        with connection.makefile("rb") as answer:
            size, header_size = struct.unpack(">II", answer.read(8))
            # The highest byte tells how the header is encoded: as it was asked, in JSON.
            header_size &= 0x00FFFFFF
            header = json.loads(answer.read(header_size))
            body = answer.read(size - 4 - header_size)
    return header["code"], header.get("remark") or "", body
