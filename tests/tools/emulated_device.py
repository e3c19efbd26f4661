"""A device that is not the CPU and needs no GPU: ``pytest --emulated`` runs tests on it as well.

It shows that the package and its tests keep everything on the device that they are given: as on a
GPU, a tensor of the CPU among those of the device is an error, unless it has no dims. Its tensors
keep their numbers in a tensor of the CPU, on which every op runs, the native ones included; with
``HAS_KERNELS`` False, these run by the package's fallback, as on a device without kernels of ours.

What it does not have, so that tests of it are skipped there: sparse layouts, autocast, the
compiler, ``opcheck``, tensors of inference mode.
"""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration
from torch.utils._python_dispatch import return_and_correct_aliasing

from circulant_attention.ops.library import NAMESPACE

NAME = "emulated"
HAS_KERNELS = True
_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1)
# These may take tensors of two devices.
_COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)
_MISSING = (
    (torch, "autocast"),
    (torch, "compile"),
    (torch.export, "export"),
    (torch.library, "opcheck"),
)


def _skip(what: str) -> NoReturn:
    pytest.skip(f"the emulated device has no {what}")


def prepare(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test on the device: what is missing skips the test."""
    for module, name in _MISSING:
        monkeypatch.setattr(module, name, lambda *args, name=name, **kwargs: _skip(name))


class EmulatedTensor(torch.Tensor):
    """A tensor of the device, with its numbers in ``memory``."""

    memory: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, memory: torch.Tensor) -> EmulatedTensor:
        if memory.layout is not torch.strided:
            _skip("sparse layouts")
        if memory.is_inference():
            _skip("tensors of inference mode")
        return torch.Tensor._make_wrapper_subclass(
            cls,
            memory.size(),
            strides=memory.stride(),
            storage_offset=memory.storage_offset(),
            dtype=memory.dtype,
            device=torch.device(NAME, 0),
        )

    def __init__(self, memory: torch.Tensor) -> None:
        self.memory = memory

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"{self.memory} on {NAME}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.memory,)

    def __deepcopy__(self, memo: Any) -> EmulatedTensor:
        return type(self)(self.memory.clone()).requires_grad_(self.requires_grad)

    def data_ptr(self) -> int:
        """Where the numbers are."""
        return self.memory.data_ptr()

    @property
    def data(self) -> torch.Tensor:
        """The tensor without its history."""
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, other: EmulatedTensor) -> None:
        torch.Tensor.data.__set__(self, other)
        self.memory = other.memory

    def tolist(self) -> Any:
        """The numbers."""
        return self.memory.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an op on the memory of its arguments."""
        kwargs = kwargs or {}
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        # Index tensors may be on the CPU, as on a GPU.
        indexes = func in _INDEXING and isinstance(args[0], cls)
        for x in tensors:
            if not isinstance(x, cls) and x.dim() > 0 and func not in _COPIES and not indexes:
                raise RuntimeError(f"{func}: expected tensors on {NAME}, got one on {x.device}")
        if not HAS_KERNELS and func.namespace == NAMESPACE:
            return func.redispatch(_KEYS, *args, **kwargs)
        is_result_here = torch.device(kwargs.get("device") or tensors[0].device).type == NAME
        if is_result_here and "device" in kwargs:
            kwargs = {**kwargs, "device": "cpu"}
        below_args, below_kwargs = pytree.tree_map_only(cls, lambda x: x.memory, (args, kwargs))
        results = func(*below_args, **below_kwargs)
        if not is_result_here:
            return results
        wrapped = pytree.tree_map_only(torch.Tensor, lambda x: cls(_written_out(x)), results)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)


# Errors name the type of what they got.
EmulatedTensor.__name__ = "Tensor"


def _written_out(x: torch.Tensor) -> torch.Tensor:
    """``x`` without flags that stand for zeros, signs or conjugates: torch sees none on memory."""
    if x._is_zerotensor():
        return x.clone()
    return x.resolve_conj().resolve_neg()


class _Module(backend_registration._DummyBackendModule):
    # What is asked of any device that draws random numbers; they are the CPU's.
    default_generators = (torch.default_generator,)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return []

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())


# Below dispatch to Python, torch makes tensors with these alone.


@torch.library.impl("aten::empty.memory_format", "PrivateUse1")
def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> EmulatedTensor:
    format_ = memory_format or torch.contiguous_format
    return EmulatedTensor(torch.empty(size, dtype=dtype, memory_format=format_))


@torch.library.impl("aten::empty_strided", "PrivateUse1")
def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> EmulatedTensor:
    return EmulatedTensor(torch.empty_strided(size, stride, dtype=dtype))


# torch's own would fill an empty tensor and resize it, of which the wrapper knows nothing.
@torch.library.impl("aten::arange.start_step", "PrivateUse1")
def _arange(start: Any, end: Any, step: Any = 1, *, dtype: Any = None, **_: Any) -> EmulatedTensor:
    return EmulatedTensor(torch.arange(start, end, step, dtype=dtype))


@torch.library.impl("aten::arange.start", "PrivateUse1")
def _arange_from(start: Any, end: Any, *, dtype: Any = None, **_: Any) -> EmulatedTensor:
    return EmulatedTensor(torch.arange(start, end, dtype=dtype))


@torch.library.impl("aten::arange", "PrivateUse1")
def _arange_to(end: Any, *, dtype: Any = None, **_: Any) -> EmulatedTensor:
    return EmulatedTensor(torch.arange(end, dtype=dtype))


@torch.library.impl("aten::_efficientzerotensor", "PrivateUse1")
def _zeros(size: Any, *, dtype: Any = None, **_: Any) -> EmulatedTensor:
    return EmulatedTensor(torch.zeros(size, dtype=dtype))


@torch.library.impl("aten::_copy_from", "PrivateUse1")
def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> Any:
    below = (x.memory if isinstance(x, EmulatedTensor) else x for x in (target, source))
    next(below).copy_(next(below))
    return target
