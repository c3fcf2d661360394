"""Permissions of topics and brokers, as the command spells them."""

from __future__ import annotations

from enum import StrEnum

from kourou.protocol.apache.rocketmq.v2 import definition_pb2


class Permission(StrEnum):
    NONE = "none"
    READ = "read"
    WRITE = "write"
    READ_WRITE = "read-write"

    @property
    def value_of_api(self) -> definition_pb2.Permission:
        return _VALUES[self]

    @staticmethod
    def of_api(permission: definition_pb2.Permission) -> str:
        return definition_pb2.Permission.Name(permission).lower().replace("_", "-")


_VALUES = {
    Permission.NONE: definition_pb2.NONE,
    Permission.READ: definition_pb2.READ,
    Permission.WRITE: definition_pb2.WRITE,
    Permission.READ_WRITE: definition_pb2.READ_WRITE,
}
