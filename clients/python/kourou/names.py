"""The rules for names of topics and groups: the one place for services, clients and the command.

Each check returns what is wrong as a sentence for the user, or None when the name is legal.
"""

from __future__ import annotations

import re

from kourou.limits import MAX_LITE_TOPIC_CHARS

MAX_TOPIC_CHARS = 127
# Shorter than a topic, so that the name of the group's dead-letter topic fits.
MAX_GROUP_CHARS = 120
MAX_NAMESPACE_CHARS = 127

DEAD_LETTER_PREFIX = "%DLQ%"
RETRY_PREFIX = "%RETRY%"

_RESERVED_PREFIXES = (DEAD_LETTER_PREFIX, RETRY_PREFIX)
# Names that RocketMQ's own tools and clients take for themselves.
_SYSTEM_PREFIXES = ("rmq_sys_", "cid_rmq_sys_")
_SYSTEM_NAMES = frozenset({"TBW102", "SCHEDULE_TOPIC_XXXX", "SELF_TEST_TOPIC", "OFFSET_MOVED_EVENT"})

# \Z, not $: the latter lets a newline at the end pass.
_NAME = re.compile(r"[%a-zA-Z0-9_-]+\Z")
_NAMESPACE = re.compile(r"[a-zA-Z0-9_-]*\Z")
_LITE_TOPIC = re.compile(r"[a-zA-Z0-9_-]+\Z")


def topic_fault(name: str) -> str | None:
    """A topic that may be sent to or received from; includes dead-letter topics."""
    return _fault("topic", name, MAX_TOPIC_CHARS)


def group_fault(name: str) -> str | None:
    """A consumer or producer group."""
    return _fault("group", name, MAX_GROUP_CHARS) or _reserved("group", name)


def new_topic_fault(name: str) -> str | None:
    """A topic that a user may create."""
    return topic_fault(name) or _reserved("topic", name)


def lite_topic_fault(name: str) -> str | None:
    """A lite topic, inside a topic of type LITE."""
    if not name:
        return "the lite topic's name is empty"
    if len(name) > MAX_LITE_TOPIC_CHARS:
        return f"the lite topic's name has {len(name)} characters; at most {MAX_LITE_TOPIC_CHARS} are allowed"
    if not _LITE_TOPIC.match(name):
        return f"the lite topic's name {name!r} has a character other than a-z A-Z 0-9 _ -"
    return None


def namespace_fault(namespace: str) -> str | None:
    """The empty namespace is legal: the default one."""
    if len(namespace) > MAX_NAMESPACE_CHARS:
        return f"the namespace has {len(namespace)} characters; at most {MAX_NAMESPACE_CHARS} are allowed"
    if not _NAMESPACE.match(namespace):
        return f"the namespace {namespace!r} has a character other than a-z A-Z 0-9 _ -"
    return None


def dead_letter_topic(group: str) -> str:
    return DEAD_LETTER_PREFIX + group


def dead_letter_group(topic: str) -> str | None:
    """The group whose dead letters the topic holds; None for other topics."""
    return topic[len(DEAD_LETTER_PREFIX) :] if topic.startswith(DEAD_LETTER_PREFIX) else None


def is_retry_topic(topic: str) -> bool:
    """A topic that RocketMQ makes for what a group could not consume: its dead letters, or what it is to try again."""
    return topic.startswith(_RESERVED_PREFIXES)


def is_system_name(name: str) -> bool:
    """A topic or group that RocketMQ's tools and clients keep for themselves."""
    return name in _SYSTEM_NAMES or name.lower().startswith(_SYSTEM_PREFIXES)


def how_topic_comes(name: str) -> str:
    """What to tell who asked for a topic that is not there."""
    group = dead_letter_group(name)
    return (
        f"it comes with the first dead letter of group {group}"
        if group
        else f"to create it: kourou topic create {name}"
    )


def _fault(kind: str, name: str, max_chars: int) -> str | None:
    if not name:
        return f"the {kind} name is empty"
    if len(name) > max_chars:
        return f"the {kind} name has {len(name)} characters; at most {max_chars} are allowed"
    if not _NAME.match(name):
        return f"the {kind} name {name!r} has a character other than a-z A-Z 0-9 _ - %"
    return None


def _reserved(kind: str, name: str) -> str | None:
    for prefix in _RESERVED_PREFIXES:
        if name.startswith(prefix):
            return f"the {kind} name {name!r} begins with {prefix}, which is reserved"
    if is_system_name(name):
        return f"the {kind} name {name!r} is reserved for the system"
    return None
