"""Messages that a group could not consume: copied to its dead-letter topic and settled, in one frame.

A letter says in its properties where it came from, so that it can be given back. Consumers see these properties, too.
"""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.section import MESSAGE_ROW
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import Fate
from kourou_broker.state.definitions import Group, Topic
from kourou_broker.state.progress import Progress

_ORIGIN = ("DLQ_ORIGIN_TOPIC_ID", "DLQ_ORIGIN_QUEUE_ID", "DLQ_ORIGIN_QUEUE_OFFSET")
"""User properties of a dead letter. The topic's id tells it from a later topic with the same name."""
_DIGITS = 20


def mark_origin(message: definition_pb2.Message, origin: tuple[int, int, int]) -> None:
    """origin: topic id, queue and offset."""
    for name, value in zip(_ORIGIN, origin, strict=True):
        message.user_properties[name] = str(value)


def origin_of(message: definition_pb2.Message) -> tuple[int, int, int] | None:
    """None if the letter does not say it, as those of earlier versions and what somebody else sent to the topic."""
    values = [message.user_properties.get(name, "") for name in _ORIGIN]
    if not all(value.isascii() and value.isdigit() and len(value) <= _DIGITS for value in values):
        return None
    topic, queue, offset = map(int, values)
    return topic, queue, offset


def original_of(letter: StoredMessage, topic: Topic) -> tuple[bytes, bytes]:
    """-> row and body of the message that the letter is a copy of, as it was in its topic."""
    message = definition_pb2.Message.FromString(letter.head)
    message.topic.CopyFrom(topic.name.resource())
    for name in _ORIGIN:
        message.user_properties.pop(name, None)
    system = definition_pb2.SystemProperties.FromString(letter.tail)
    system.ClearField("dead_letter_queue")
    head, tail = message.SerializeToString(), system.SerializeToString()
    return MESSAGE_ROW.pack(len(head), len(tail), letter.tag_hash), head + tail


class DeadLetters:
    def __init__(self, definitions: Definitions, journal: Journal, traffic: Traffic) -> None:
        self._definitions = definitions
        self._journal = journal
        self._traffic = traffic

    def move(self, group: Group, topic: Topic, progress: Progress, stored: StoredMessage) -> None:
        """The message is settled at once. Raises Refused when messages cannot be stored now."""
        letters = self._definitions.dead_letter_topic(group)
        message = definition_pb2.Message.FromString(stored.head)
        message.topic.CopyFrom(letters.name.resource())
        system = definition_pb2.SystemProperties.FromString(stored.tail)
        system.dead_letter_queue.topic = topic.name.name
        system.dead_letter_queue.message_id = system.message_id
        mark_origin(message, (topic.id, progress.queue, stored.offset))
        head, tail = message.SerializeToString(), system.SerializeToString()
        row = MESSAGE_ROW.pack(len(head), len(tail), stored.tag_hash)
        self._journal.store(letters, definition_pb2.NORMAL, [row], [head + tail], lambda _stored: None)
        self._journal.settle_now(progress, [stored.offset], Fate.DEAD_LETTERED)
        self._traffic.of_group(group.id, topic.id).dead_letters += 1
