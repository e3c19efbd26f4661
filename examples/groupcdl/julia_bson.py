"""Reads files of BSON.jl, in which Julia programs keep arrays and named tuples of them.

The container is BSON, read by the package `bson` of pymongo. BSON.jl writes what BSON does not have
as documents with a key `tag`. Nothing in a file is run: types are names only.

    Julia                      here
    Dict, NamedTuple           dict
    Symbol, String             str
    Tuple, Core.SimpleVector   tuple
    Array of numbers           NumPy array of the same dims, in column-major order
    Array of other things      list; with two dims or more a NumPy array of objects
    a number                   Python's or NumPy's
    a type, a function         JuliaType
    any other struct           JuliaStruct
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bson
import bson.errors
import numpy as np
import torch
from torch import Tensor

NUMBERS = {
    **{
        f"{sign}Int{bits}": f"{sign.lower()}int{bits}"
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
    **{f"Float{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "Bool": "bool",
}


class JuliaFileError(ValueError):
    """A file that is no BSON, or has content that this reader does not know."""


@dataclasses.dataclass(frozen=True)
class JuliaType:
    """The name of a type without its modules, and its parameters."""

    name: str
    parameters: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class JuliaStruct:
    """The fields of a struct, which BSON.jl stores without their names."""

    type: JuliaType
    fields: tuple[Any, ...]


def load(path: Path) -> dict[str, Any]:
    """What ``BSON.load(path)`` returns, as Python values.

    Raises:
        JuliaFileError: If the file is no BSON, or BSON.jl did not write it.
        OSError: If the file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        document = bson.decode(data)
    except bson.errors.InvalidBSON as error:
        raise JuliaFileError(f"{path} is no BSON file: {error}") from None
    try:
        return Reader(document.pop("_backrefs", [])).value(document)
    except JuliaFileError as error:
        raise JuliaFileError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise JuliaFileError(f"{path} is not as BSON.jl writes it ({reason})") from None


def tensor(array: np.ndarray) -> Tensor:
    """A Julia array as a tensor: its dims reversed, so that the bytes stay where they are."""
    return torch.from_numpy(np.array(array.T, order="C"))


def kernel(array: np.ndarray) -> Tensor:
    """A kernel ``(p, p, C, M)`` of Lux or Flux as one of torch for images ``(B, C, H, W)``.

    NNlib turns kernels round, as mathematics does in a convolution, and torch does not.
    """
    channels_first = array.transpose(3, 2, 0, 1)
    return torch.from_numpy(np.array(channels_first[..., ::-1, ::-1], order="C"))


class Reader:
    """The values of one file; ``backrefs`` are those that it has several times."""

    def __init__(self, backrefs: list[Any]) -> None:
        self.backrefs = backrefs
        self.known: dict[int, Any] = {}
        self.open: set[int] = set()
        self.tags: dict[str, Callable[[dict[str, Any]], Any]] = {
            "array": self.array,
            "backref": self.backref,
            "datatype": lambda d: JuliaType(d["name"][-1], self.values(d["params"])),
            "jl_anonymous": lambda d: JuliaType("anonymous function"),
            "jl_bottom_type": lambda d: JuliaType("Union{}"),
            "ref": lambda d: ".".join(d["path"]),
            "struct": self.struct,
            "svec": lambda d: self.values(d["data"]),
            "symbol": lambda d: d["name"],
            "tuple": lambda d: self.values(d["data"]),
            "unionall": lambda d: JuliaType("UnionAll", self.values([d["body"], d["var"]])),
        }

    def value(self, x: Any) -> Any:
        """A document, a list or a plain value of BSON as Python's."""
        if isinstance(x, list):
            return [self.value(item) for item in x]
        if isinstance(x, bytes):
            return np.frombuffer(x, np.uint8)
        if not isinstance(x, dict):
            return x
        if "tag" not in x:
            return {key: self.value(item) for key, item in x.items()}
        tag = x["tag"]
        if tag not in self.tags:
            raise JuliaFileError(f"the tag {tag!r} is unknown")
        return self.tags[tag](x)

    def values(self, items: list[Any]) -> tuple[Any, ...]:
        """A list as a tuple."""
        return tuple(map(self.value, items))

    def backref(self, d: dict[str, Any]) -> Any:
        """A value that the file has several times; made once, so that it is the same object."""
        number = int(d["ref"])
        if not 1 <= number <= len(self.backrefs):
            raise JuliaFileError(f"reference {number} of {len(self.backrefs)}")
        if number in self.open:
            raise JuliaFileError(f"reference {number} contains itself")
        if number not in self.known:
            self.open.add(number)
            self.known[number] = self.value(self.backrefs[number - 1])
            self.open.discard(number)
        return self.known[number]

    def array(self, d: dict[str, Any]) -> Any:
        """An array; numbers are stored as bytes, all else as a list."""
        element, sizes, data = self.value(d["type"]), self.values(d["size"]), d["data"]
        if isinstance(data, bytes):
            dtype = number_type(element)
            expected = math.prod(sizes) * dtype.itemsize
            if len(data) != expected:
                raise JuliaFileError(f"an array of {expected} bytes has {len(data)}")
            return numbers(data, dtype).reshape(sizes, order="F")
        items = np.empty(len(data), dtype=object)
        items[:] = self.values(data)
        return items.reshape(sizes, order="F")

    def struct(self, d: dict[str, Any]) -> Any:
        """A number, a dictionary, a named tuple or another struct."""
        kind, data = self.value(d["type"]), d["data"]
        if isinstance(data, bytes):
            return numbers(data, number_type(kind)).item()
        if kind.name in ("Dict", "IdDict"):
            keys, values = self.values(data)
            return dict(zip(keys, values, strict=True))
        fields = self.values(data)
        if kind.name == "NamedTuple":
            return dict(zip(kind.parameters[0], fields, strict=True))
        if kind.name == "Complex":
            return complex(*fields)
        return JuliaStruct(kind, fields)


def number_type(kind: JuliaType) -> np.dtype:
    """The NumPy dtype of a Julia type."""
    if kind.name == "Complex" and kind.parameters:
        part = number_type(kind.parameters[0])
        return np.dtype([("real", part), ("imag", part)])
    if kind.name not in NUMBERS:
        raise JuliaFileError(f"numbers of type {kind.name} are not read")
    return np.dtype(NUMBERS[kind.name]).newbyteorder("<")


def numbers(data: bytes, dtype: np.dtype) -> np.ndarray:
    """The numbers in some bytes; complex ones are pairs in the file."""
    found = np.frombuffer(data, dtype)
    if dtype.names is None:
        return found
    # Python's 1j would make single precision double.
    result = np.empty(found.shape, np.result_type(dtype["real"], np.complex64))
    result.real, result.imag = found["real"], found["imag"]
    return result
