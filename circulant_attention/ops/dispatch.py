"""Sends calls of the public functions with DTensors to :mod:`circulant_attention.distributed`.

That package imports this one and the functions that it serves. So it is not imported here but
loaded by its name, when the first DTensor comes: importing DTensor costs most of a second.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])

IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {}
"""What each function does with DTensors, by its name; filled by the package."""

MATRICES: list[type] = []
"""The classes of distributed matrices; filled by the package."""

_PACKAGE = "circulant_attention.distributed"


def takes_distributed(function: _Function) -> _Function:
    """Lets a function take DTensors, and matrices made of them; where there is none, refuses them.

    It is also for the ``forward`` of a module, which is refused by the name of its class.
    """
    name = function.__qualname__.removesuffix(".forward").lstrip("_")

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_distributed(*args, *kwargs.values()):
            return implementation(name)(*args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def is_distributed(*arguments: Any) -> bool:
    """Whether one of the arguments is a DTensor or a distributed matrix."""
    module = sys.modules.get("torch.distributed.tensor")
    if module is None:
        return False
    for argument in arguments:
        if type(argument) is torch.Tensor:
            continue
        if isinstance(argument, module.DTensor):
            return True
        for matrix in MATRICES:
            if isinstance(argument, matrix):
                return True
    return False


def implementation(name: str) -> Callable[..., Any]:
    """The function for DTensors.

    Raises:
        TypeError: If there is none.
    """
    if not IMPLEMENTATIONS:
        if torch.compiler.is_compiling():
            # A compiler does not trace the import of a package.
            raise RuntimeError(f"import {_PACKAGE} before compiling a function of DTensors")
        importlib.import_module(_PACKAGE)
    found = IMPLEMENTATIONS.get(name)
    if found is None:
        raise TypeError(
            f"{name} does not take DTensors: use x.full_tensor(), or x.to_local() of a tensor that "
            f"is sharded over the batch"
        )
    return found
