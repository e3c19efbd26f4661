"""Writes files as BSON.jl does, byte by byte, without the package that the examples read with.

BSON.jl lowers each value to a document with a key ``tag``, and moves what it meets several times
into a list ``_backrefs``; types of arrays are always there.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# What the example itself reads with: a machine without a package index may lack it.
for module in ("bson", "yaml"):
    pytest.importorskip(module)

CODES = {
    float: b"\x01",
    str: b"\x02",
    dict: b"\x03",
    list: b"\x04",
    bytes: b"\x05",
    bool: b"\x08",
    type(None): b"\x0a",
    int: b"\x12",
}
JULIA_TYPES = {
    "float32": "Float32",
    "float64": "Float64",
    "complex64": "Complex",
    "uint8": "UInt8",
    "int64": "Int64",
    "bool": "Bool",
}


class Backrefs:
    """Lowers values and numbers the types of arrays."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, int], int] = {}
        self.values: list[Any] = []

    def lower(self, x: Any) -> Any:
        """A value as documents; a dict stands for a named tuple."""
        if isinstance(x, dict):
            names = {"tag": "tuple", "data": [symbol(name) for name in x]}
            types = datatype("Tuple", *(self.type_of(value) for value in x.values()))
            values = [self.lower(value) for value in x.values()]
            return {"tag": "struct", "type": datatype("NamedTuple", names, types), "data": values}
        if isinstance(x, np.ndarray):
            data = x.tobytes(order="F")
            return {"tag": "array", "type": element(x.dtype), "size": [*x.shape], "data": data}
        if isinstance(x, np.generic):
            return {"tag": "struct", "type": element(x.dtype), "data": x.tobytes()}
        return x

    def type_of(self, x: Any) -> Any:
        """The type of a field of a named tuple."""
        if not isinstance(x, np.ndarray):
            return datatype("NamedTuple")
        key = (str(x.dtype), x.ndim)
        if key not in self.numbers:
            self.values.append(datatype("Array", element(x.dtype), x.ndim))
            self.numbers[key] = len(self.values)
        return {"tag": "backref", "ref": self.numbers[key]}


def symbol(name: str) -> dict[str, Any]:
    return {"tag": "symbol", "name": name}


def datatype(name: str, *parameters: Any) -> dict[str, Any]:
    return {"tag": "datatype", "params": [*parameters], "name": ["Core", name]}


def element(dtype: np.dtype) -> dict[str, Any]:
    parameters = [datatype("Float32")] if dtype == np.complex64 else []
    return datatype(JULIA_TYPES[str(dtype)], *parameters)


def encode(document: dict[str, Any]) -> bytes:
    """A document of BSON."""
    body = b"".join(pair(key, value) for key, value in document.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def pair(key: str, x: Any) -> bytes:
    return CODES[type(x)] + key.encode() + b"\0" + primitive(x)


def primitive(x: Any) -> bytes:
    if isinstance(x, dict):
        return encode(x)
    if isinstance(x, list):
        return encode({str(i): item for i, item in enumerate(x)})
    if isinstance(x, str):
        return struct.pack("<i", len(x.encode()) + 1) + x.encode() + b"\0"
    if isinstance(x, bytes):
        return struct.pack("<ib", len(x), 0) + x
    if isinstance(x, bool):
        return struct.pack("<?", x)
    if isinstance(x, int):
        return struct.pack("<q", x)
    return b"" if x is None else struct.pack("<d", x)


def checkpoint(ps: dict[str, Any]) -> bytes:
    """A checkpoint with the parameters ``ps``, nested dicts of arrays as Julia has them."""
    backrefs = Backrefs()
    lowered = backrefs.lower(ps)
    rate = backrefs.lower(np.float32(5e-4))
    return encode({"epoch": 3, "_backrefs": backrefs.values, "lr": rate, "ps": lowered})


def write_folder(folder: Path, ps: dict[str, Any], **net: Any) -> Path:
    """A folder with net.bson and config.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.bson").write_bytes(checkpoint(ps))
    lines = ["net:", *(f"  {key}: {value}" for key, value in net.items())]
    text = "\n".join(lines) + "\ndata:\n  cropsize: 70\n"
    (folder / "config.yaml").write_text(text.replace("True", "true"), encoding="utf-8")
    return folder
