"""CRC-32C, with types."""

from collections.abc import Callable
from typing import cast

import google_crc32c

# The checksum of some bytes, and that of bytes which follow others whose checksum is known.
value = cast("Callable[[bytes], int]", google_crc32c.value)  # pyright: ignore[reportUnknownMemberType]
extend = cast("Callable[[int, bytes], int]", google_crc32c.extend)  # pyright: ignore[reportUnknownMemberType]
