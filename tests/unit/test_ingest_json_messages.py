"""The compiled parser of messages says what the plain one says, to the bit, and leaves to it what it must."""

from __future__ import annotations

import json
import random
import struct
from decimal import Decimal

import numpy as np
import pytest
from numba import njit

from tidewarden.frames import SeriesKey, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden_services.ingest.compiled import numbers
from tidewarden_services.ingest.compiled.words import PAD
from tidewarden_services.ingest.sources import json_messages
from tidewarden_services.ingest.sources.columns import Columns, SeriesIndex
from tidewarden_services.ingest.sources.json_messages import MessageParser, NameTable
from tidewarden_services.ingest.sources.json_readings import parse_lines

STREAM = MetricStream.model_validate(
    {"kind": "MetricStream", "metadata": {"name": "s"}, "spec": {"tenants": ["shop", "bank"]}}
)
AT = 1_767_225_600_000

Reading = tuple[int, str, int, bytes]


def origin(row: int) -> str:
    return f"message {row}"


def parser() -> MessageParser:
    return MessageParser(SeriesIndex(STREAM, SeriesTable()))


def by_the_plain_one(messages: list[bytes]) -> tuple[list[Reading], list[object]]:
    """Every message by itself, on a table of its own."""
    columns = Columns(SeriesIndex(STREAM, SeriesTable()), origin)
    for row, message in enumerate(messages):
        parse_lines([message], columns, row, refuse_empty=True)
    frame = columns.frame()
    return listed(columns.rows(), frame), described(columns.refused)


def listed(rows: np.ndarray, frame: object) -> list[Reading]:
    paths = [frame.table[series].path for series in frame.series.tolist()]
    values = [struct.pack("<d", value) for value in frame.value.tolist()]
    return list(zip(rows.tolist(), paths, frame.timestamp.tolist(), values, strict=True))


def described(refused: list) -> list[object]:
    return [(item.reason, item.detail, item.origin, item.raw, repr(item.fields)) for item in refused]


def assert_same(own: MessageParser, messages: list[bytes]) -> int:
    """Compares one batch; how many messages took the slow road."""
    parsed = own.parse(messages, origin)
    readings, refused = by_the_plain_one(messages)
    assert listed(parsed.rows, parsed.frame) == readings
    assert described(parsed.refused) == refused
    return parsed.slow


class Writer:
    """Writes messages as no library would: any order, any spaces, things of all kinds, and some of them broken."""

    NAMES = ("a", "n-1", "x y", "ü", "日本", "latency_ms", "exactly", "a name of more than 16 bytes")
    ODD_NAMES = ("", "tab\t", 'a"b', "back\\slash", "\x7f", "\ud800", "🙂", "n" * 513)
    TIMES = (
        str(AT), "1767225600", "0", "99999999999", "100000000000", "253402300799999", "253402300800000", "-5",
        "1767225600.25", "1767225600.1234567", "1.7672256e9", "1767225600123.5", "1767225600124.5", "1e3", "-0",
        "-0.0", "1e300", "1e400", "99999999999.9999", "null", "true", "NaN", "9223372036854775808", "01",
        '"2026-01-31T08:00:00Z"', '"2026-01-31 08:00:00"', '"2024-02-29T23:59:59.999+05:30"',
        '"2026-01-31T08:00:00.123456-01:00"', '"2026-02-29T00:00:00Z"', '"2026-01-31T08:00:00.1Z"',
        '"2026-01-31T08:00:00.1234567Z"', '"2026-01-31T24:00:00Z"', '"2026-01-31T08:00:60Z"', '"2026-01-31"',
        '"2026-W05-6T08:00:00Z"', '"20260131T080000Z"', '"1969-12-31T23:59:59Z"', '"1767225600"',
        '" 2026-01-31T08:00:00Z "', '"2026-01-31t08:00:00z"', '"2026-01-31T08:00:00-24:00"', '"soon"', '""', '"',
    )  # fmt: skip
    ODD_VALUES = (
        "null", "true", "false", "NaN", "Infinity", "-Infinity", '"1"', "[]", "{}", "[1]", "nul", "-", "+1", ".5",
        "1.", "1.e5", "01", "-01", "00.5", "0x10", "1e", "1e+", "1E5", "1e-5", "1e+05", "1e0000001", "-0", "-0.0",
        "0", "0.0", "0e0", "0e99999", "1e308", "1e309", "-1e309", "5e-324", "2e-324", "1e-400", "9007199254740993",
        "9007199254740993.0", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1" * 400,
        "1." + "3" * 400, "0." + "0" * 400 + "1", "2.2250738585072011e-308", "1.7976931348623159e308",
        "123456789012345678.5", "0.1234567890123456789",
    )  # fmt: skip
    SCALARS = (
        "1", "-2.5e3", "true", "false", "null", '"text"', '""', '"ü\\n\\"\\\\ \\/ \\b\\f\\t\\r"', '"\\u00e4"',
        "1e999", "1" * 30,
    )  # fmt: skip
    BROKEN = (
        "tru", '"\\x"', '"a\nb"', "[1,]", '{"a":1,}', '{"a"}', "{1:2}", "[1 2]", "'a'", "[}", "{]", "nan",
        "[" * 40 + "]" * 40, "-",
    )  # fmt: skip

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def chance(self, odds: float) -> bool:
        return self.rng.random() < odds

    def space(self) -> str:
        return "" if self.chance(0.85) else "".join(self.rng.choices(" \t\r\n", k=self.rng.randint(1, 3)))

    def quoted(self, name: str) -> str:
        written = json.dumps(name, ensure_ascii=self.chance(0.03) or name == "\ud800")
        return (
            f'"\\u{ord(name[0]):04x}{name[1:]}"'
            if name.isalnum() and ord(name[0]) < 2**16 and self.chance(0.01)
            else written
        )

    def name(self) -> str:
        return self.quoted(self.rng.choice(self.ODD_NAMES if self.chance(0.02) else self.NAMES))

    def value(self) -> str:
        rng = self.rng
        match rng.randrange(40):
            case 0:
                return str(rng.randint(-(10 ** rng.randint(1, 20)), 10 ** rng.randint(1, 20)))
            case n if 6 <= n < 20:
                return repr(rng.uniform(-1000, 1000))
            case 3:
                return repr(struct.unpack("<d", rng.randbytes(8))[0])  # also nan, inf and the very small
            case 4:
                return f"{rng.randint(0, 10**18)}e{rng.randint(-80, 80)}"
            case 5:
                return rng.choice(self.ODD_VALUES) if self.chance(0.6) else "null"
            case _:
                return f"{rng.uniform(-1000, 1000):.3f}"

    def anything(self, depth: int = 0) -> str:
        rng = self.rng
        if self.chance(0.02):
            return rng.choice(self.BROKEN)
        if depth > 3 or self.chance(0.5):
            return rng.choice(self.SCALARS)
        inner = [self.anything(depth + 1) for _ in range(rng.randrange(4))]
        if self.chance(0.5):
            return f"[{self.space()}{f',{self.space()}'.join(inner)}{self.space()}]"
        pairs = (f"{self.name()}{self.space()}:{self.space()}{one}" for one in inner)
        return f"{{{self.space()}{','.join(pairs)}{self.space()}}}"

    def members(self, pairs: list[tuple[str, str]]) -> str:
        written = (f"{self.space()}{key}{self.space()}:{self.space()}{value}{self.space()}" for key, value in pairs)
        return f"{{{','.join(written)}}}"

    def metrics(self) -> str:
        names = self.rng.sample(self.NAMES, self.rng.choice((0, 1, 2, 4, 8))) + self.rng.choices(
            self.NAMES + self.ODD_NAMES, k=self.chance(0.05)
        )
        return self.members([(self.quoted(name), self.value()) for name in names])

    def message(self) -> bytes:
        rng = self.rng
        tenant = rng.choice(("shop", "shop", "shop", "bank", "stranger" if self.chance(0.1) else "bank"))
        fields = [('"tenant"', f'"{tenant}"'), ('"cluster"', '"eu"'), ('"node"', self.name())]
        fields.append(('"timestamp"', str(AT + rng.randrange(10**9)) if self.chance(0.9) else rng.choice(self.TIMES)))
        if self.chance(0.5):
            fields.append(('"metrics"', self.metrics()))
        if len(fields) == 4 or self.chance(0.02):
            fields += [('"metric"', self.name()), ('"value"', self.value())]
        fields += [
            (self.quoted(rng.choice(("tenants", "node ", "x", "ünknown", "metrics2"))), self.anything())
            for _ in range(self.chance(0.3))
        ]
        if self.chance(0.3):
            rng.shuffle(fields)
        if self.chance(0.03):
            fields[rng.randrange(len(fields))] = (rng.choice(fields)[0], self.anything())
        if self.chance(0.03):
            fields.append(rng.choice(fields))
        if self.chance(0.03):
            fields.remove(rng.choice(fields))
        text = (self.space() + self.members(fields) + self.space()).encode("utf-8", "surrogatepass")
        return self.damaged(text) if self.chance(0.1) else text

    def damaged(self, text: bytes) -> bytes:
        rng = self.rng
        at = rng.randrange(len(text) + 1)
        match rng.randrange(8):
            case 0:
                return text[:at]
            case 1:
                return text[:at] + text[at + 1 :]
            case 2:
                return (
                    text[:at]
                    + rng.choice((b"\xff", b"\xc3", b"\0", b"\\", b'"', b",", b"}", b"1", b"-", b" ", b"\x1f", b"\x80"))
                    + text[at:]
                )
            case 3:
                return text + rng.choice((b"{}", b"x", b"\0", b",", b"\xef\xbb\xbf", text))
            case 4:
                return rng.choice((b"\xef\xbb\xbf", b"[", b"\0")) + text
            case 5:
                return b"[" + text + b"]"
            case 6:
                return rng.choice((b"", b" ", b"null", b"1", b'"x"', b"{", b"}", b"{}", b"\0", b"[]", text[at:]))
            case _:
                return bytes(text[:at]) + rng.randbytes(3) + text[at + 3 :]


@pytest.mark.parametrize("seed", range(8))
def test_both_roads_say_the_same_of_whatever_is_written(seed: int) -> None:
    """Readings in their order with every bit of their values, and refusals word by word, in batches of all lengths."""
    writer, own = Writer(seed), parser()
    slow = count = 0
    while count < 4_000:
        messages = [writer.message() for _ in range(writer.rng.choice((1, 7, 100, 900)))]
        slow += assert_same(own, messages)
        count += len(messages)
    assert 0.1 < slow / count < 0.7  # or one of the roads would not have been looked at


USUAL = b'{"tenant":"shop","cluster":"eu","node":"n1","timestamp":%d,"metrics":{"a":1.5,"b":null}}'
FLAT = b'{"tenant":"shop","cluster":"eu","node":"n1","timestamp":%d,"metric":"a","value":-2}'
UNUSUAL = {
    "spaces": b' { "tenant" : "shop" ,\n"cluster":\t"eu","node":"n1",'
    b'"timestamp":1767225600000,"metrics": { "a" : 1 } } ',
    "another order": b'{"metrics":{"b":1e3},"timestamp":1767225600,"node":"n1","cluster":"eu","tenant":"shop"}',
    "unknown fields": b'{"v":{"a":[{},[],[1,{"b":"\\n\xc3\xbc"}],-0.5e-3,true,null]},"tenant":"shop","cluster":"eu",'
    b'"node":"n1","timestamp":1767225600000,"metric":"a","value":1,"\xff":"\xff"}',
    "a date": b'{"tenant":"shop","cluster":"eu","node":"n1","timestamp":"2026-01-31T08:00:00.500+01:00",'
    b'"metric":"a","value":1}',
    "seconds": b'{"tenant":"shop","cluster":"eu","node":"n1","timestamp":1767225600.123457,"metric":"b","value":1}',
    "17 digits": b'{"tenant":"shop","cluster":"eu","node":"n1","timestamp":1,'
    b'"metrics":{"a":0.30000000000000004,"b":1e-30}}',
}  # fmt: skip


@pytest.mark.parametrize("message", UNUSUAL.values(), ids=UNUSUAL.keys())
def test_sound_messages_of_known_series_are_compiled_roads_work(message: bytes) -> None:
    """What producers really send takes the fast road, not only one library's favourite form."""
    own = parser()
    assert assert_same(own, [USUAL % AT]) == 1  # the names are new
    assert assert_same(own, [USUAL % AT, message, FLAT % AT]) == 0


def test_messages_of_both_roads_stay_in_their_order() -> None:
    """A new node, an escape and a broken message between known ones change nobody's place."""
    own = parser()
    assert_same(own, [USUAL % AT])
    new = (USUAL % AT).replace(b"n1", b"n2")
    escaped = (FLAT % AT).replace(b"n1", b"n\\u0031")
    messages = [USUAL % AT, new, FLAT % (AT + 1), escaped, b"{", FLAT % (AT + 2), new, b"", USUAL % (AT + 3)]
    assert assert_same(own, messages) == 5
    assert assert_same(own, messages) == 3  # the escape, and the two that are none


def test_a_message_of_more_metrics_than_a_column_holds_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns that fill up in the midst of a batch, or of a message, lose nothing."""
    monkeypatch.setattr(json_messages, "ROWS", 10)
    monkeypatch.setattr(json_messages, "PIECE_BYTES", 2_000)
    own = parser()
    wide = b'{"tenant":"shop","cluster":"eu","node":"n1","timestamp":%d,"metrics":{%s}}'
    sizes = (4, 4, 4, 10, 1, 11, 9, 30, 2, 10, 10)
    messages = [wide % (AT, b",".join(b'"m%d":%d' % (i, i) for i in range(size))) for size in sizes]
    assert_same(own, messages)
    assert assert_same(own, messages) == 2  # those of 11 and 30


def test_what_no_room_is_for_is_read_slowly_and_well() -> None:
    """The table of names stops growing at its bounds; series beyond are found by the other road, again and again."""
    keys = [SeriesKey("shop", "eu", f"n{n}", "a") for n in range(10)]
    table = SeriesTable(keys)
    few = NameTable(table, max_series=4)
    few.learn(np.arange(10, dtype=np.int32))
    assert len(few) == 4
    short = NameTable(table, max_name_bytes=50)
    short.learn(np.arange(3, dtype=np.int32))
    short.learn(np.arange(10, dtype=np.int32))
    assert len(short) == 3


def test_thousands_of_series_are_found_again() -> None:
    """The table of names grows in steps and mixes none of them up."""
    own = parser()
    messages = [
        b'{"tenant":"%s","cluster":"c%d","node":"n%d","timestamp":1,"metrics":{"a":%d,"b":%d}}'
        % (tenant, n % 7, n, n, -n)
        for n in range(3_000)
        for tenant in (b"shop", b"bank")
    ]
    assert assert_same(own, messages[:1_000]) == 1_000
    assert assert_same(own, messages) == 5_000
    assert assert_same(own, messages[::-1]) == 0


@njit
def _number(text):
    return numbers.number(text.ctypes.data)


def _written(rng: random.Random) -> str:
    match rng.randrange(5):
        case 0:
            return repr(rng.uniform(-1000, 1000) * 10.0 ** rng.randint(-20, 20))
        case 1:
            return f"{rng.getrandbits(rng.randint(1, 60))}.5e{rng.randint(-70, 70)}"
        case 2:  # exactly between two numbers, or just beside
            between = str(Decimal(2 * (rng.getrandbits(53) | 1 << 52) + 1) * Decimal(2) ** rng.randint(-8, 3))
            return between + rng.choice(("", "1" if "." in between else ".1"))
        case 3:
            return f"0.{'0' * rng.randint(0, 9)}{rng.randint(0, 10**17)}"
        case _:
            return str(rng.randint(-(10 ** rng.randint(1, 18)), 10 ** rng.randint(1, 18)))


def test_a_number_is_the_nearest_float_or_left_to_others() -> None:
    """Against Python's own conversion, which is exact: also halfway between two floats, where rounding is hardest."""
    rng = random.Random(5)
    taken = 0
    for _ in range(40_000):
        text = _written(rng)
        written = np.frombuffer(text.encode() + PAD, np.uint8)
        end, kind, whole, value = _number(written)
        if kind == numbers.BROKEN:
            continue
        taken += 1
        assert (end - written.ctypes.data, struct.pack("<d", value)) == (len(text), struct.pack("<d", float(text))), (
            text
        )
        assert kind == (numbers.WHOLE if set(text) <= set("-0123456789") else numbers.DECIMAL), text
        assert kind == numbers.DECIMAL or whole == int(text)
    assert taken > 30_000
