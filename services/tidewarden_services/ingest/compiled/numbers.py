"""JSON's numbers as the nearest float64, to the last bit, or left to others."""

from __future__ import annotations

import numpy as np
from numba import njit

from tidewarden_services.ingest.compiled.words import (
    WordArray,
    byte_at,
    float_of,
    high_product,
    leading_zeros,
    trailing_zeros,
    word_at,
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
_WHOLE_TENS = np.array([10**n for n in range(MAX_MANTISSA_DIGITS + 1)], np.uint64)

_ZEROS, _SIXES = np.uint64(0x3030303030303030), np.uint64(0x0606060606060606)
_HIGH_HALVES, _LOW_HALVES = np.uint64(0xF0F0F0F0F0F0F0F0), np.uint64(0x0F0F0F0F0F0F0F0F)
_PAIRS, _FOURS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)


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


@njit(forceinline=True)
def _digits(at: int) -> tuple[int, np.uint64]:
    """The end of the digits that begin at ``at``, and what they write, modulo 2**64; eight of them at a time.

    Not a digit after the other: how many there are differs from number to number, and a wrong guess of the
    processor costs more than the arithmetic.
    """
    value = np.uint64(0)
    while True:
        word = word_at(at) ^ _ZEROS  # what is a digit is 0 to 9 now
        other = ((word + _SIXES) | word) & _HIGH_HALVES
        count = trailing_zeros(other) >> 3 if other != np.uint64(0) else 8
        if count > 0:
            word = (word << np.uint64(64 - 8 * count)) & _LOW_HALVES  # zeros in front
            word = (word * np.uint64(10 * 2**8 + 1)) >> np.uint64(8) & _PAIRS
            word = (word * np.uint64(100 * 2**16 + 1)) >> np.uint64(16) & _FOURS
            word = (word * np.uint64(10_000 * 2**32 + 1)) >> np.uint64(32)
            value = value * _WHOLE_TENS[count] + word
            at += count
        if count < 8:
            return at, value


@njit(cache=True, nogil=True)
def number(at: int) -> tuple[int, int, np.int64 | int, float]:
    """The JSON number that begins at ``at``: (its end, what it is, as int64 if whole, as float64).

    `BROKEN` also for what only a longer arithmetic gets right: the caller asks another parser.
    """
    negative = byte_at(at) == 45  # -
    begin = at + negative
    at, mantissa = _digits(begin)
    digits = at - begin
    if digits == 0 or digits > MAX_DIGITS or (digits > 1 and byte_at(begin) == 48):
        return at, BROKEN, 0, 0.0
    power: np.int64 | int = 0
    byte = byte_at(at)
    whole = byte != 46  # .
    if not whole:
        begin = at + 1
        at, fraction = _digits(begin)
        power = begin - at
        if mantissa == np.uint64(0):
            digits = 0
        if digits - power > MAX_MANTISSA_DIGITS and digits == 0:
            while byte_at(begin) == 48:
                begin += 1
        if power == 0 or digits + at - begin > MAX_MANTISSA_DIGITS:
            return at, BROKEN, 0, 0.0
        mantissa = mantissa * _WHOLE_TENS[min(-power, MAX_MANTISSA_DIGITS)] + fraction
        byte = byte_at(at)
    if byte == 101 or byte == 69:  # e, E
        whole = False
        sign = byte_at(at + 1)
        begin = at + 2 if sign == 43 or sign == 45 else at + 1  # + -
        at, exponent = _digits(begin)
        if at == begin or at - begin > MAX_EXPONENT_DIGITS:
            return at, BROKEN, 0, 0.0
        tens = np.int64(exponent)
        power += -tens if sign == 45 else tens
    if whole:
        integer = np.int64(mantissa)
        if negative:
            return at, BROKEN if integer == 0 else WHOLE, -integer, -np.float64(integer)
        return at, WHOLE, integer, np.float64(integer)
    if mantissa == np.uint64(0):
        return at, DECIMAL, 0, -0.0 if negative else 0.0
    if power < -FAR or power > FAR:
        return at, BROKEN, 0, 0.0
    certain, value = nearest(mantissa, power)
    return at, DECIMAL if certain else BROKEN, 0, -value if negative else value
