"""The parts of JSON that no reading is made of, passed over, and the forms of a timestamp."""

from __future__ import annotations

import numpy as np
from numba import njit

from tidewarden_services.ingest.compiled.numbers import BROKEN, DECIMAL, WHOLE, number
from tidewarden_services.ingest.compiled.words import byte_at, word_at
from tidewarden_services.ingest.sources.times import LAST_MS, SECONDS_BELOW

MAX_DEPTH = 32  # of what is passed over; deeper is left to the other parser


def pattern(text: bytes) -> np.uint64:
    """At most eight bytes as the word that `word_at` reads where they stand."""
    return np.uint64(int.from_bytes(text, "little"))


FIRST_4, FIRST_5 = np.uint64(2**32 - 1), np.uint64(2**40 - 1)
NULL, _TRUE, _FALSE = pattern(b"null"), pattern(b"true"), pattern(b"false")


@njit(forceinline=True)
def space(at: int) -> int:
    """Where what is no space begins."""
    byte = byte_at(at)
    while byte == 32 or byte == 10 or byte == 13 or byte == 9:
        at += 1
        byte = byte_at(at)
    return at


@njit(cache=True, nogil=True)
def _string(at: int) -> int:
    """The end of a string after its first quote; -1 where it is broken, or has an escape of four digits."""
    while True:
        byte = byte_at(at)
        at += 1
        if byte == 34:  # "
            return at
        if byte < 32:
            return -1
        if byte == 92:  # \
            byte = byte_at(at)
            at += 1
            if not (
                byte == 34 or byte == 92 or byte == 47 or byte == 98
                or byte == 102 or byte == 110 or byte == 114 or byte == 116
            ):  # fmt: skip
                return -1


@njit(cache=True, nogil=True)
def key_end(at: int) -> int:
    """Where the value begins whose key does; -1 where that is no key."""
    if byte_at(at) != 34:
        return -1
    at = _string(at + 1)
    if at < 0:
        return -1
    at = space(at)
    if byte_at(at) != 58:  # :
        return -1
    return space(at + 1)


@njit(cache=True, nogil=True)
def _scalar(at: int) -> int:
    """The end of a string, number or word; -1 where it is none of them."""
    byte = byte_at(at)
    if byte == 34:
        return _string(at + 1)
    if byte == 45 or 48 <= byte <= 57:
        at, kind, _, _ = number(at)
        return at if kind != BROKEN else -1
    word = word_at(at)
    if word & FIRST_4 == _TRUE or word & FIRST_4 == NULL:
        return at + 4
    return at + 5 if word & FIRST_5 == _FALSE else -1


@njit(cache=True, nogil=True)
def passed(at: int) -> int:
    """The end of whatever value begins at ``at``; -1 where it is broken, too deep, or a number of many digits."""
    depth = 0
    objects = 0  # what encloses the value, innermost lowest: 1 for an object, 0 for an array
    while True:
        byte = byte_at(at)
        if byte == 123 or byte == 91:  # { [
            closing = space(at + 1)
            if byte_at(closing) == byte + 2:
                at = closing + 1
            elif depth == MAX_DEPTH:
                return -1
            else:
                depth += 1
                objects = objects * 2 + (byte == 123)
                at = key_end(closing) if byte == 123 else closing
                if at < 0:
                    return -1
                continue
        else:
            at = _scalar(at)
            if at < 0:
                return -1
        while True:
            if depth == 0:
                return at
            at = space(at)
            byte = byte_at(at)
            if byte == 44:  # ,
                at = space(at + 1)
                if objects & 1:
                    at = key_end(at)
                    if at < 0:
                        return -1
                break
            if byte != (125 if objects & 1 else 93):  # } ]
                return -1
            depth -= 1
            objects >>= 1
            at += 1


# --- timestamps ----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _digits(at: int, count: int) -> int:
    """The number that ``count`` digits write; -1 where they are not digits."""
    value = 0
    for i in range(at, at + count):
        digit = byte_at(i) - 48
        if digit < 0 or digit > 9:
            return -1
        value = 10 * value + digit
    return value


@njit(cache=True, nogil=True)
def _calendar(at: int) -> tuple[int, int]:
    """RFC 3339 after its first quote, of the years 1971 to 9998: (end, ms since the epoch); -1 for other forms."""
    year, month, day = _digits(at, 4), _digits(at + 5, 2), _digits(at + 8, 2)
    hour, minute, second = _digits(at + 11, 2), _digits(at + 14, 2), _digits(at + 17, 2)
    if byte_at(at + 4) != 45 or byte_at(at + 7) != 45:
        return -1, 0
    if byte_at(at + 13) != 58 or byte_at(at + 16) != 58:
        return -1, 0
    between = byte_at(at + 10)
    if not (between == 84 or between == 32) or not (1971 <= year <= 9998 and 1 <= month <= 12):
        return -1, 0
    if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 59):
        return -1, 0
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days = 31 - (month == 4 or month == 6 or month == 9 or month == 11)
    if month == 2:
        days = 29 if leap else 28
    if day < 1 or day > days:
        return -1, 0
    at += 19
    ms = 0
    if byte_at(at) == 46:  # .
        ms = _digits(at + 1, 3)
        if ms < 0:
            return -1, 0
        at += 4
        if _digits(at, 3) >= 0:  # microseconds: cut off
            at += 3
    ahead = 0  # of UTC, minutes
    byte = byte_at(at)
    if byte == 90:  # Z
        at += 1
    elif byte == 43 or byte == 45:  # + -
        hours, minutes = _digits(at + 1, 2), _digits(at + 4, 2)
        if byte_at(at + 3) != 58 or not (0 <= hours <= 23 and 0 <= minutes <= 59):
            return -1, 0
        ahead = (hours * 60 + minutes) * (44 - byte)
        at += 6
    if byte_at(at) != 34:
        return -1, 0
    # Days since 1970 by the calendar whose year begins in March, so that the leap day is its last.
    y = year - (month <= 2)
    of_year = (153 * (month + (9 if month <= 2 else -3)) + 2) // 5 + day - 1
    since = 365 * y + y // 4 - y // 100 + y // 400 + of_year - 719_468
    return at + 1, ((since * 1440 + hour * 60 + minute - ahead) * 60 + second) * 1000 + ms


@njit(cache=True, nogil=True)
def time_of(at: int) -> tuple[int, int]:
    """(end, ms since the epoch) of a timestamp as `times.timestamp_ms` reads it; -1 for what is left to that."""
    byte = byte_at(at)
    if byte == 34:
        return _calendar(at + 1)
    if byte < 48:  # negative too
        return -1, 0
    end, kind, whole, value = number(at)
    if kind == WHOLE:
        ms = whole if whole >= SECONDS_BELOW else whole * 1000
    elif kind == DECIMAL and value <= LAST_MS:
        ms = np.int64(np.rint(value if value >= SECONDS_BELOW else value * 1000.0))
    else:
        return -1, 0
    return (end, ms) if ms <= LAST_MS else (-1, 0)
