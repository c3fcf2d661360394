"""How the bodies of a batch are packed. What is unpacked is bounded by what its headers promise, and by a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import lz4.frame  # pyright: ignore[reportMissingTypeStubs]
import zstandard

from kourou.errors import CorruptMessage
from kourou.protocol.kourou.stream.v1 import stream_pb2

MAX_UNPACKED_BYTES = 16 * 1024 * 1024
"""Of a batch's bodies; a batch has at most as much as a message of gRPC."""

Bytes = bytes | memoryview
B = TypeVar("B", bytes, memoryview)
Compression = Literal["zstd", "lz4"]

ALL = (stream_pb2.CODEC_ZSTD, stream_pb2.CODEC_LZ4)
"""What this library unpacks."""

CODEC_OF: dict[Compression, stream_pb2.Codec] = {"zstd": stream_pb2.CODEC_ZSTD, "lz4": stream_pb2.CODEC_LZ4}

_lz4 = cast("Any", lz4.frame)  # it has no types


def pack(codec: stream_pb2.Codec, bodies: bytes) -> bytes:
    if codec == stream_pb2.CODEC_ZSTD:
        return zstandard.ZstdCompressor().compress(bodies)
    return cast("bytes", _lz4.compress(bodies, store_size=True))


def unpack(codec: stream_pb2.Codec, packed: B, size_bytes: int) -> B | bytes:
    """Exactly that many bytes; those that came, if they are not packed.

    Raises CorruptMessage when they are more, fewer, or too many, or no such frame.
    """
    if size_bytes > MAX_UNPACKED_BYTES:
        raise CorruptMessage(f"a batch promises {size_bytes} bytes; at most {MAX_UNPACKED_BYTES} are unpacked")
    if codec == stream_pb2.CODEC_UNSPECIFIED:
        bodies = packed
    else:
        unpacking = _UNPACKING.get(codec)
        if unpacking is None:
            raise CorruptMessage(f"a batch is packed in a way that this version does not know: codec {codec}")
        bodies = unpacking(packed, size_bytes)
    if len(bodies) != size_bytes:
        raise CorruptMessage(f"a batch promises {size_bytes} bytes and has {len(bodies)}")
    return bodies


def _unzstd(packed: Bytes, size_bytes: int) -> bytes:
    try:
        # The decompressor takes the memory that the frame asks for: so that is looked at first.
        promised = zstandard.frame_content_size(packed)
        if promised != size_bytes:
            raise CorruptMessage(f"a batch promises {size_bytes} bytes, its zstd frame {promised}")
        return zstandard.ZstdDecompressor().decompress(packed, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptMessage(f"the bodies of a batch are no zstd: {error}") from None


def _unlz4(packed: Bytes, size_bytes: int) -> bytes:
    unpacking = _lz4.LZ4FrameDecompressor()
    try:
        bodies = cast("bytes", unpacking.decompress(packed, max_length=size_bytes + 1))
    except (RuntimeError, EOFError, ValueError) as error:
        raise CorruptMessage(f"the bodies of a batch are no lz4: {error}") from None
    if not unpacking.eof or unpacking.unused_data:
        raise CorruptMessage("the lz4 frame of a batch is cut off, or is not all of it")
    return bodies


_UNPACKING: dict[int, Callable[[Bytes, int], bytes]] = {
    stream_pb2.CODEC_ZSTD: _unzstd,
    stream_pb2.CODEC_LZ4: _unlz4,
}
