"""Non-local means as a module without parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from circulant_attention.checks import check_odd, check_positive
from circulant_attention.denoising import nlm as denoising
from circulant_attention.denoising.arguments import check_number, checked_boundary


class NonlocalDenoiser(nn.Module):
    r"""Denoise images by non-local means: an average over pixels with similar patches.

    .. math::

        y_i = \sum_j A_{ij} x_j, \qquad
        A_{ij} \propto \exp(-d_{ij} / (\beta \sigma)^2)

    with the distance :math:`d_{ij}` of the patches around pixels i and j, for j in the window
    around i. The module has no parameters;
    :func:`~circulant_attention.denoising.nonlocal_means` has the details.

    Args:
        sigma: The standard deviation of the noise, in the units of the image. None if it is
            given with every image.
        window: The odd length of the window in both dims.
        patch: The odd length of a patch in both dims.
        bandwidth: :math:`\beta`, the bandwidth in units of sigma. More averages more, and blurs
            more.
        boundary: ``"circular"``: images wrap at the borders. ``"truncated"``: windows end there,
            and patches see the image mirrored; for photographs. Or one for rows and one for
            columns.
        memory: Bytes for the patches. Larger images are computed in tiles; None computes every
            image at once.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Note:
        With N pixels of C channels, windows of K pixels and patches of P: O(N K C P) operations,
        and O(N C P) memory or ``memory``, whichever is less. Weights are not stored.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import NonlocalDenoiser
        >>> clean = torch.zeros(1, 1, 32, 32)
        >>> clean[..., 16:] = 1
        >>> noisy = clean + 0.1 * torch.randn(clean.shape)
        >>> denoised = NonlocalDenoiser(sigma=0.1, window=9, patch=5)(noisy)
        >>> bool((denoised - clean).std() < 0.5 * (noisy - clean).std())
        True

    References:
        A. Buades, B. Coll, J.-M. Morel, A non-local algorithm for image denoising, CVPR 2005.
    """

    def __init__(
        self,
        sigma: float | None = None,
        *,
        window: int = 21,
        patch: int = 7,
        bandwidth: float = denoising.DEFAULT_BANDWIDTH,
        boundary: str | Sequence[str] = "circular",
        memory: int | None = denoising.DEFAULT_MEMORY,
    ) -> None:
        super().__init__()
        check_odd(window=window, patch=patch)
        check_number("bandwidth", bandwidth)
        checked_boundary(boundary)
        if sigma is not None:
            check_number("sigma", sigma, zero=True)
        if memory is not None:
            check_positive(memory=memory)
        self.sigma = sigma
        self.window = window
        self.patch = patch
        self.bandwidth = bandwidth
        self.boundary = boundary if isinstance(boundary, str) else tuple(boundary)
        self.memory = memory

    def forward(
        self,
        image: Tensor,
        sigma: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Denoise.

        Args:
            image: ``(B, C, H, W)`` or ``(C, H, W)``, real or complex; not smaller than the window
                and the patch.
            sigma: The standard deviation of the noise; the module's by default.
            progress: Called after each tile with the number of tiles done and their total number.

        Returns:
            A tensor of the shape and dtype of ``image``.

        Raises:
            TypeError: If an argument has the wrong type or dtype.
            ValueError: If the shape does not fit, or sigma is given neither here nor to the module.
        """
        sigma = self.sigma if sigma is None else sigma
        if sigma is None:
            raise ValueError("expected sigma, to the module or with the image, got None")
        tile = None
        if self.memory is not None:
            tile = denoising.tile_size(
                image, window=self.window, patch=self.patch, memory=self.memory
            )
        return denoising.nonlocal_means(
            image,
            sigma,
            window=self.window,
            patch=self.patch,
            bandwidth=self.bandwidth,
            boundary=self.boundary,
            tile=tile,
            progress=progress,
        )

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"sigma={self.sigma}, window={self.window}, patch={self.patch}, "
            f"bandwidth={self.bandwidth}, boundary={self.boundary!r}, memory={self.memory}"
        )
