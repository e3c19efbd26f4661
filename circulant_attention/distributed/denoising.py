"""Non-local means of DTensors: each rank denoises its pixels, from its shard and a halo."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from circulant_attention.denoising import means, nlm, tiling
from circulant_attention.denoising.arguments import (
    check_image,
    check_number,
    check_width,
    checked_boundary,
    checked_sigma,
    checked_tile,
)
from circulant_attention.denoising.tiling import Span
from circulant_attention.distributed import halos
from circulant_attention.distributed.local import nothing
from circulant_attention.distributed.placements import BATCH, Placed, check_dtensor, placed
from circulant_attention.ops.windows import CIRCULAR


def nonlocal_means(
    image: Tensor,
    sigma: float | Tensor,
    *,
    window: int = 21,
    patch: int = 7,
    bandwidth: float = nlm.DEFAULT_BANDWIDTH,
    boundary: str | Sequence[str] = "circular",
    tile: int | tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """As the function of this name for tensors.

    The halo is half a window, half a patch and one pixel wide. A sigma that is a tensor is the same
    on every rank, or a replicated DTensor.
    """
    check_image(check_dtensor("image", image))
    check_width("window", window, image)
    check_width("patch", patch, image)
    check_number("bandwidth", bandwidth)
    border = checked_boundary(boundary)
    tiles = checked_tile(tile, *image.shape[-2:])
    batch = image if image.dim() == 4 else image.unsqueeze(0)
    where = placed("image", check_dtensor("image", batch), 2)
    if where.parts > 1:
        raise ValueError(
            "image is sharded over its channels, which share their weights: use image.redistribute"
        )
    shard = where.local("image", batch, batch.shape[1])
    noise = _own_noise(sigma, image, shard, where)
    if not isinstance(noise, Tensor) and noise == 0:
        return image.clone()
    extended = shard
    spans: list[list[Span]] = []
    for at, (cut, tile_size) in enumerate(zip(where.grid.dims, tiles, strict=True)):
        size, circular = where.grid.spatial_size[at], border[at] == CIRCULAR
        if cut is None:
            spans.append(tiling.spans(size, tile_size, window // 2, border[at]))
            continue
        reach = means.reach(window, patch)
        settings = (at + 2, list(cut.sizes), cut.rank, reach, reach, circular, cut.group)
        (extended,) = halos.extend([extended], settings)
        first = cut.start - reach if circular else max(cut.start - reach, 0)
        spans.append(_spans(size, where.grid.slices[at], tile_size, window, border[at], first))
    if where.grid.empty or not shard.shape[0]:
        result = nothing(shard.new_empty(shard.shape), extended)
    else:
        rows, columns = spans
        result = means.denoised_tiles(
            extended, noise, rows, columns, window, patch, bandwidth, border, progress
        )
        result = means.noiseless_kept(result, shard, noise)
    y = where.wrap(result, batch.shape)
    return y if image.dim() == 4 else y.squeeze(0)


def _spans(size: int, own: slice, tile: int, window: int, boundary: int, first: int) -> list[Span]:
    """The tiles of a shard, in an image that begins at pixel ``first`` of the whole one."""
    found = tiling.spans_of_part(size, own, tile, window // 2, boundary)
    return [span.moved(-first) for span in found]


def _own_noise(
    sigma: float | Tensor, image: Tensor, shard: Tensor, where: Placed
) -> float | Tensor:
    """Sigma of this rank's images, checked against all of them."""
    if isinstance(sigma, Tensor):
        sigma = where.parameter("sigma", sigma)
    # Of the shape of the whole image, without its memory.
    whole = shard.new_empty(()).expand(image.shape)
    noise = checked_sigma(sigma, whole, zero=True)
    if isinstance(noise, Tensor):
        noise = where.own(noise, 0, BATCH, where.batch_size)
    return noise
