"""CRC32C of many rows at once, as Zarr's ``crc32c`` codec writes it behind each chunk.

Example::

    crc32c(np.frombuffer(b"123456789", np.uint8)[None])     # [0xE3069283]
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

BYTES = 4
"""Length of a checksum behind its chunk, little-endian."""

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected (RFC 3720, appendix B.4)


@cache
def _table() -> NDArray[np.uint32]:
    """What each byte does to a checksum: (256,) uint32."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = ((values >> 1) ^ (values & 1) * _POLYNOMIAL).astype(np.uint32)
    return values


def crc32c(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The checksum (n,) of each row of bytes (n, length).

    Rows are worked on side by side, one byte after the other: fast for many rows, slow for one.
    """
    table = _table()
    sums = np.full(len(rows), 0xFFFFFFFF, dtype=np.uint32)
    for column in np.ascontiguousarray(rows.T):
        sums = table[(sums ^ column) & 0xFF] ^ (sums >> 8)
    return ~sums
