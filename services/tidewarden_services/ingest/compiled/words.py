"""What a compiled parser needs of the machine: unchecked bytes and words of a buffer, and the bits of numbers.

numba has no unaligned loads, and its own indexing asks at every byte whether the index is negative. These
functions ask nothing: a caller's buffer ends with `PAD`, which stops every scan and holds every load.
Little-endian, like every machine that numba compiles for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Bytes = npt.NDArray[np.uint8]
WordArray = npt.NDArray[np.uint64]

PAD = b'\0"' + bytes(62)
"""At the end of every buffer: ends a token, then a name, then room for a timestamp, read in one go (35 bytes)."""

# No count of references: an array that one function hands to another is otherwise counted as used and then unused, by
# instructions that lock the memory; that took half of a kernel's time. Such a function cannot make arrays.
UNCOUNTED = {"nogil": True, "_nrt": False}

_I64, _I128 = ir.IntType(64), ir.IntType(128)


@intrinsic
def byte_at(typing: Any, at: Any) -> Any:  # noqa: ARG001 - the protocol of numba's intrinsics
    """The byte at an address, as int64."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001 - as above
        return builder.zext(builder.load(builder.inttoptr(args[0], ir.IntType(8).as_pointer())), _I64)

    return types.int64(types.int64), emit


@intrinsic
def word_at(typing: Any, at: Any) -> Any:  # noqa: ARG001 - as above
    """The eight bytes from an address on, as uint64, the first one lowest."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001 - as above
        return builder.load(builder.inttoptr(args[0], _I64.as_pointer()), align=1)

    return types.uint64(types.int64), emit


@intrinsic
def trailing_zeros(typing: Any, word: Any) -> Any:  # noqa: ARG001 - as above
    """Zero bits below the lowest one of a word that is not 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001 - as above
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), emit


@intrinsic
def leading_zeros(typing: Any, word: Any) -> Any:  # noqa: ARG001 - as above
    """Zero bits above the highest one of a word that is not 0."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001 - as above
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), emit


@intrinsic
def high_product(typing: Any, a: Any, b: Any) -> Any:  # noqa: ARG001 - as above
    """The upper 64 bits of the product of two words."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001 - as above
        product = builder.mul(builder.zext(args[0], _I128), builder.zext(args[1], _I128))
        return builder.trunc(builder.lshr(product, ir.Constant(_I128, 64)), _I64)

    return types.uint64(types.uint64, types.uint64), emit


@intrinsic
def float_of(typing: Any, bits: Any) -> Any:  # noqa: ARG001 - as above
    """The float64 of these bits."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001 - as above
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.uint64), emit
