"""Non-local means: denoising by attention of patches to the patches around them."""

from circulant_attention.denoising.nlm import (
    DEFAULT_BANDWIDTH,
    DEFAULT_MEMORY,
    attention_window,
    bytes_per_pixel,
    nonlocal_means,
    patches,
    tile_size,
)

__all__ = [
    "DEFAULT_BANDWIDTH",
    "DEFAULT_MEMORY",
    "attention_window",
    "bytes_per_pixel",
    "nonlocal_means",
    "patches",
    "tile_size",
]
