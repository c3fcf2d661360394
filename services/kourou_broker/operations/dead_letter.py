"""Messages that a group could not consume: copied to its dead-letter topic and settled, in one frame."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.log.section import MESSAGE_ROW
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.operations.traffic import Traffic
from kourou_broker.state import Fate
from kourou_broker.state.definitions import Group, Topic
from kourou_broker.state.progress import Progress


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
        head, tail = message.SerializeToString(), system.SerializeToString()
        row = MESSAGE_ROW.pack(len(head), len(tail), stored.tag_hash)
        self._journal.store(letters, definition_pb2.NORMAL, [row], [head + tail], lambda _stored: None)
        self._journal.settle_now(progress, [stored.offset], Fate.DEAD_LETTERED)
        self._traffic.of_group(group.id, topic.id).dead_letters += 1
