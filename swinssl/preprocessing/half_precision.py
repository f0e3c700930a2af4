"""Float32 to float16 without the numbers that processors stumble over.

Below 2^-14 float16 has fewer and fewer digits, and a processor takes 10 to 50 ns instead of 1 for each such number, to
make it as to read it back. Resampled MR images have many, where a spline rings in the void around the patient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# What an image's largest magnitude may be for float16: steps are at most 0.5 up to 1e3, and below 1e-3 for intensities
# in [0, 1]; and at 2^-3 half a step is 2^-14, under which all becomes 0.
LEAST, MOST = 2.0**-3, 1e3
# As many as stay in a core's cache with what is computed on the way.
AT_ONCE = 32_768
SIGN, REST = np.uint32(0x8000), np.uint32(0x7FFFFFFF)
MANTISSA = np.uint32(13)  # bits that float32 has more
# From float32's exponent to float16's, modulo 2^32, and a little less than half of the last place that stays.
REBIASED = np.uint32(((15 - 127) << 23) % 2**32 + 0xFFF)
# 2^-14 as float32's bits.
NORMAL = np.uint32((127 - 14) << 23)


def is_half_enough(image: NDArray[np.float32]) -> bool:
    """Whether float16 keeps an image to 2^-11 of its largest value, and of each that is larger than 2^-14."""
    largest = max(float(image.max()), -float(image.min())) if image.size else 0.0
    return largest == 0 or LEAST <= largest <= MOST


def to_half(image: NDArray[np.float32]) -> NDArray[np.float16]:
    """As float16: rounded to the nearest, ties to even, as everywhere; under 2^-14 it is 0.

    In integers: the exponent is shifted, and the mantissa rounded by adding just under half a place, and its last bit,
    before what is too much is cut off.

    Args:
        image: finite, magnitudes up to `MOST`.
    """
    source = np.ascontiguousarray(image, np.float32).reshape(-1).view(np.uint32)
    out = np.empty(image.shape, np.float16)
    target = out.reshape(-1).view(np.uint16)
    space = [np.empty(min(AT_ONCE, source.size), np.uint32) for _ in range(2)]
    below = np.empty(len(space[0]), np.bool_)
    for start in range(0, source.size, AT_ONCE):
        bits = source[start : start + AT_ONCE]
        half, size, small = (one[: len(bits)] for one in (*space, below))
        np.bitwise_and(bits, REST, out=size)
        np.less(size, NORMAL, out=small)
        np.right_shift(size, MANTISSA, out=half)
        np.bitwise_and(half, np.uint32(1), out=half)
        np.add(half, size, out=half)
        np.add(half, REBIASED, out=half)
        np.right_shift(half, MANTISSA, out=half)
        np.right_shift(bits, np.uint32(16), out=size)
        np.bitwise_and(size, SIGN, out=size)
        np.bitwise_or(half, size, out=half)
        np.copyto(half, np.uint32(0), where=small)
        target[start : start + AT_ONCE] = half
    return out
