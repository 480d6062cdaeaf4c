"""JSON's numbers as the nearest float64, to the last bit, or left to others."""

from __future__ import annotations

import numpy as np
from numba import njit

from tidewarden_services.ingest.compiled.words import (
    Bytes,
    WordArray,
    byte_at,
    float_of,
    high_product,
    leading_zeros,
)

BROKEN, WHOLE, DECIMAL = 0, 1, 2
"""What `number` found: none (or one that it leaves to others), an integer, a float."""

MAX_DIGITS = 18  # of a whole number, which then is an int64 for certain
MAX_MANTISSA_DIGITS = 19  # 10**19 - 1 is below 2**64
MAX_EXPONENT_DIGITS = 3
EXACT = 22  # the largest power of ten that a float64 holds exactly
FAR = 64  # powers of ten that are tabled; what is beyond is rare, and far from where float64 ends: no subnormals

ALL = np.uint64(2**64 - 1)


def _powers() -> tuple[WordArray, WordArray]:
    """The 128 highest bits of 5**q for q in ±`FAR`, as two words; rounded down, of reciprocals up."""
    high, low = [], []
    for q in range(-FAR, FAR + 1):
        if q >= 0:
            power = 5**q
            power = power << 128 >> power.bit_length()
        else:
            bits = (5**-q - 1).bit_length()  # 2**bits is the first power of two that is not below
            power = (1 << (2 * bits + 128)) // 5**-q + 1 if q < -27 else (1 << (bits + 127)) // 5**-q + 1
            power >>= power.bit_length() - 128
        high.append(power >> 64)
        low.append(power & (2**64 - 1))
    return np.array(high, np.uint64), np.array(low, np.uint64)


_HIGH, _LOW = _powers()
_TENS = np.array([10.0**n for n in range(EXACT + 1)])


@njit(cache=True, nogil=True)
def nearest(mantissa: np.uint64, power: int) -> tuple[bool, float]:
    """The float64 nearest to mantissa · 10**power, as (certain, value); 0 < mantissa < 2**64, ``power`` within ±`FAR`.

    Clinger's exact division or product where both are exact, else the algorithm of Eisel and Lemire
    ("Number parsing at a gigabyte per second", 2021), which says when it cannot tell.
    """
    if mantissa < np.uint64(2**53) and -EXACT <= power <= EXACT:
        exact = np.float64(np.int64(mantissa))
        return True, exact / _TENS[-power] if power < 0 else exact * _TENS[power]
    zeros = leading_zeros(mantissa)
    word = mantissa << np.uint64(zeros)
    first = _HIGH[power + FAR]
    high = high_product(word, first)
    low = word * first
    if high & np.uint64(0x1FF) == np.uint64(0x1FF):  # the 55 bits that are needed may yet change
        more = high_product(word, _LOW[power + FAR])
        low += more
        if more > low:
            high += np.uint64(1)
    if low == ALL:
        return False, 0.0
    top = high >> np.uint64(63)
    shift = top + np.uint64(9)
    bits = high >> shift
    exponent = ((217706 * power) >> 16) + 63 + np.int64(top) - zeros + 1023
    halfway = low <= np.uint64(1) and -4 <= power <= 23 and bits & np.uint64(3) == np.uint64(1)
    if halfway and bits << shift == high:
        bits &= ~np.uint64(1)  # exactly between two: the even one
    bits = (bits + (bits & np.uint64(1))) >> np.uint64(1)
    if bits >= np.uint64(2**53):
        bits = np.uint64(2**52)
        exponent += 1
    return True, float_of((bits & np.uint64(2**52 - 1)) | (np.uint64(exponent) << np.uint64(52)))


@njit(cache=True, nogil=True)
def number(text: Bytes, at: int) -> tuple[int, int, int, float]:
    """The JSON number that begins at ``at``: (its end, what it is, as int64 if whole, as float64).

    `BROKEN` also for what only a longer arithmetic gets right: the caller asks another parser.
    """
    negative = byte_at(text, at) == 45  # -
    if negative:
        at += 1
    digit = byte_at(text, at) - 48
    if digit < 0 or digit > 9:
        return at, BROKEN, 0, 0.0
    begin = at
    mantissa = 0
    while 0 <= digit <= 9:
        mantissa = 10 * mantissa + digit
        at += 1
        digit = byte_at(text, at) - 48
    digits = at - begin
    if (digits > 1 and byte_at(text, begin) == 48) or digits > MAX_DIGITS:
        return at, BROKEN, 0, 0.0
    power = 0
    whole = True
    wide = np.uint64(mantissa)
    if digit == -2:  # .
        whole = False
        at += 1
        begin = at
        digit = byte_at(text, at) - 48
        if mantissa == 0:
            digits = 0
            while digit == 0:
                at += 1
                digit = byte_at(text, at) - 48
        leading = at
        while 0 <= digit <= 9:
            wide = wide * np.uint64(10) + np.uint64(digit)
            at += 1
            digit = byte_at(text, at) - 48
        power = begin - at
        if power == 0 or digits + at - leading > MAX_MANTISSA_DIGITS:
            return at, BROKEN, 0, 0.0
    if digit == 53 or digit == 21:  # e, E
        whole = False
        at += 1
        sign = byte_at(text, at)
        if sign == 43 or sign == 45:  # + -
            at += 1
        begin = at
        exponent = 0
        digit = byte_at(text, at) - 48
        while 0 <= digit <= 9 and at - begin < MAX_EXPONENT_DIGITS:
            exponent = 10 * exponent + digit
            at += 1
            digit = byte_at(text, at) - 48
        if at == begin or 0 <= digit <= 9:
            return at, BROKEN, 0, 0.0
        power += -exponent if sign == 45 else exponent
    if whole:
        if negative:
            return at, BROKEN if mantissa == 0 else WHOLE, -mantissa, -np.float64(mantissa)
        return at, WHOLE, mantissa, np.float64(mantissa)
    if wide == np.uint64(0):
        return at, DECIMAL, 0, -0.0 if negative else 0.0
    if power < -FAR or power > FAR:
        return at, BROKEN, 0, 0.0
    certain, value = nearest(wide, power)
    return at, DECIMAL if certain else BROKEN, 0, -value if negative else value
