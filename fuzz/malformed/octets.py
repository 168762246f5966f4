"""Changes to bytes, whatever they mean."""

from __future__ import annotations

from random import Random

NUMBERS = (
    0, 1, -1, 2, 3, 7, 64, 127, 128, 255, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63),
)  # fmt: skip
"""Where readers of sizes, counts, axes and offsets go wrong."""


def mutate(data: bytes, draw: Random) -> bytes:
    """The bytes with one change: flipped, cut off, cut out, doubled, inserted, or overwritten by an extreme number."""
    if not data:
        return draw.randbytes(draw.randint(1, 40))
    at = draw.randrange(len(data))
    size = min(draw.choice((1, 2, 4, 8, 40, 400)), len(data) - at)
    match draw.randrange(8):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + draw.randbytes(size) + data[at + size :]
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[at + size :]
        case 4:
            return data[: at + size] + data[at : at + size] * draw.choice((1, 2, 100)) + data[at + size :]
        case 5:
            return data[:at] + draw.randbytes(size) + data[at:]
        case 6:
            return data[:at] + varint(draw.choice(NUMBERS)) + data[at + 1 :]
    number = (draw.choice(NUMBERS) & 2**64 - 1).to_bytes(8, "little")[: draw.choice((2, 4, 8))]
    return data[:at] + number + data[at + len(number) :]


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))
