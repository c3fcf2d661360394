"""The descriptor pool of the protocols in proto/, apart from protobuf's default pool.

In the default pool our apache.rocketmq.v2 would collide with that of the official client, and a program could not
import both. The well-known types are in the pool too, with all their methods; but a Timestamp of this pool is another
class than google.protobuf's own.
"""

from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal import builder


def _load() -> DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("descriptors.binpb").read_bytes())
    pool = DescriptorPool()
    for file in files.file:  # a file comes after those it imports
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _load()


def define(proto: str, module: dict[str, object]) -> None:
    """Puts the messages and enums of the file `proto` into a module's globals, as the code of protoc does."""
    file = POOL.FindFileByName(proto)
    module["DESCRIPTOR"] = file
    builder.BuildMessageAndEnumDescriptors(file, module)
    builder.BuildTopDescriptorsAndMessages(file, str(module["__name__"]), module)
