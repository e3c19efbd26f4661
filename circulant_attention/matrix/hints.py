"""What to use in place of the functions of torch that a Circulant does not have."""

from __future__ import annotations

import torch

# Functions of each entry that are not zero at zero.
_DENSE = frozenset(
    """
    acos acosh arccos arccosh cos cosh digamma erfc exp exp2 i0 lgamma log log10 log2 logit
    reciprocal rsqrt sigmoid sinc
    """.split()
)
# Others, with arguments or with results that are no entries.
_OF_VALUES = frozenset(
    """
    eq floor_divide fmod ge greater greater_equal gt heaviside isclose isfinite isinf isnan le less
    less_equal logical_and logical_not logical_or lt masked_fill ne not_equal remainder signbit
    where
    """.split()
)
# Functions of many entries, of which the zeros outside of the pattern are most.
_REDUCTIONS = frozenset(
    """
    all amax amin any argmax argmin count_nonzero cummax cumprod cumsum log_softmax logsumexp max
    median min nanmean nansum norm prod sort std topk var
    """.split()
)
_OTHERS = {
    "T": "use A.mT for the transposed matrices",
    "H": "use A.mH for the conjugate transposed matrices",
    "t": "use A.mT for the transposed matrices",
    "stack": "the result would have five dims, and a Circulant has four: use torch.cat([A, B], 0) "
    "for the batch or torch.cat([A, B], 1) for the heads",
    "backward": "use A.values.backward(...): the entries carry the gradient",
    "grad": "use A.values.grad",
    "grad_fn": "use A.values.grad_fn",
    "numpy": "use A.values.numpy(), A.to_dense().numpy() or A.to_scipy()",
    "view": "use A.reshape",
    "tolist": "use A.values.tolist() or A.to_dense().tolist()",
}
_FORMS = "use A.to_dense() for a dense tensor or A.data for a torch.sparse_csr one"


def hint(name: str) -> str:
    """What to use in place of the function ``name`` of torch with a Circulant ``A``."""
    if name in _OTHERS:
        return _OTHERS[name]
    plain = name.strip("_")
    if plain in _DENSE:
        return f"use A.with_values(A.values.{plain}()) for the stored entries; or {_FORMS}"
    if plain in _OF_VALUES:
        return f"use A.values.{plain}(...) for the stored entries; or {_FORMS}"
    if plain in _REDUCTIONS:
        return (
            f"use A.values.{plain}(...) for the stored entries, A.rows.{plain}(-1) for those of "
            f"each row; or {_FORMS}"
        )
    return _FORMS


def missing_attribute(cls: type, name: str) -> str:
    """The message of an AttributeError, with a hint if ``torch.Tensor`` has the attribute."""
    message = f"{cls.__name__!r} object has no attribute {name!r}"
    if name.startswith("_") or hasattr(cls, name) or not hasattr(torch.Tensor, name):
        return message
    if name.endswith("_"):
        return f"{message}: no method changes a Circulant in place, but A.values.{name} its entries"
    return f"{message}, which would not be sparse: {hint(name)}"


def not_two(operation: str, other: object) -> str:
    """Why ``operation`` of a Circulant with something else is refused."""
    return f"expected two Circulants for {operation}, got a {type(other).__name__}"


def dense_result(operation: str, other: object) -> str:
    """Why ``operation`` of a Circulant with a number or a tensor, a dense result, is refused."""
    return (
        f"{not_two(operation, other)}: the result would be dense; use A.with_values for a function "
        f"of A.values, the stored entries, or A.to_dense()"
    )
