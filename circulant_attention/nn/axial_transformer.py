"""A transformer for images made of axial attention and convolutions, optionally reversible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from circulant_attention.checks import check_positive, positive_ints
from circulant_attention.nn.axes import AlongAxis, channel_index, check_grid, check_grid_mask
from circulant_attention.nn.axial import AxialPositionalEmbedding
from circulant_attention.nn.norms import ChannelStdNorm
from circulant_attention.nn.reversible import ReversibleSequence
from circulant_attention.nn.self_attention import SelfAttention
from circulant_attention.ops.dispatch import takes_distributed


class _PreNorm(nn.Module):
    """Layer norm over the last dim, then `fn`."""

    def __init__(
        self,
        dim: int,
        fn: SelfAttention,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(dim, device=device, dtype=dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.fn(self.norm(x), mask=mask)
        return out

    def reset_parameters(self) -> None:
        self.norm.reset_parameters()
        self.fn.reset_parameters()


class _FeedForward(nn.Sequential):
    """Norm and two 3x3 convolutions; a mask is zero padding of any shape to both."""

    def __init__(
        self, dim: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> None:
        super().__init__(
            ChannelStdNorm(
                (1, dim, 1, 1),
                correction=0,
                eps=1e-5,
                names=("g", "b"),
                device=device,
                dtype=dtype,
            ),
            nn.Conv2d(dim, 4 * dim, 3, padding=1, device=device, dtype=dtype),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(4 * dim, dim, 3, padding=1, device=device, dtype=dtype),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        norm, widen, activation, narrow = self
        if mask is None:
            out: Tensor = narrow(activation(widen(norm(x))))
            return out
        kept = mask.unsqueeze(1)
        out = narrow(kept * activation(widen(kept * norm(x))))
        return kept * out


class _ResidualSequence(nn.Module):
    """Pairs of residual branches, one after the other on one stream."""

    def __init__(self, blocks: Iterable[tuple[nn.Module, nn.Module]]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleList(pair) for pair in blocks)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            for branch in block.children():
                x = x + branch(x, mask)
        return x


class AxialImageTransformer(nn.Module):
    r"""Layers of axial attention and convolutions with residuals, for images.

    A layer is two pairs f, g of residual branches: attention along the height and along the width,
    each after a layer norm; then twice norm over the channels, 3x3 convolution to 4 C channels,
    leaky ReLU, 3x3 convolution. One stream runs through x + f(x), then x + g(x). The reversible
    form has two streams, both x at first; its result is their mean:

    .. math:: y_1 = x_1 + f(x_2), \quad y_2 = x_2 + g(y_1)

    Its backward pass recovers :math:`x_2 = y_2 - g(y_1)` and :math:`x_1 = y_1 - f(x_2)`; the plain
    form keeps activations. The two forms are different functions of the same weights.

    Args:
        dim: The number of channels C; even for the reversible form.
        depth: The number of layers.
        heads: The number of heads.
        dim_heads: The number of channels per head; ``dim // heads`` when left out, and then
            ``heads`` must divide ``dim``.
        dim_index: The position of the channels in the input, whose dim 0 is the batch.
        reversible: Whether to use two streams and recompute activations.
        axial_pos_emb_shape: The largest height and width, to add an
            :class:`AxialPositionalEmbedding`.
        dropout: The probability of dropping an attention weight in training.
        device: The device of the parameters.
        dtype: The dtype of the parameters.

    Raises:
        TypeError: If a number that counts is not an int.
        ValueError: If an argument is out of range.

    Note:
        With N = H W pixels a layer takes O(N C (C + H + W)) operations. Training keeps O(N C)
        activations per layer; the reversible form O(N C) in all, for any depth, and evaluates every
        branch once more. With dropout it also keeps the state of the random number generator for
        every branch; in a compiled graph, which cannot set that state, one activation per branch.
        In forward mode that records a graph it keeps all activations. ``torch.compile`` makes a
        graph of the reversible form for each size of the images.

    Example:
        >>> import torch
        >>> from circulant_attention.nn import AxialImageTransformer
        >>> net = AxialImageTransformer(dim=8, depth=2, heads=2, axial_pos_emb_shape=(32, 32))
        >>> net(torch.randn(1, 8, 12, 20)).shape
        torch.Size([1, 8, 12, 20])

    References:
        Ho et al., Axial attention in multidimensional transformers, arXiv:1912.12180; Gomez et
        al., The reversible residual network, arXiv:1707.04585. Arguments and parameter names are
        those of ``axial_attention`` 0.6.1.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int = 8,
        dim_heads: int | None = None,
        dim_index: int = 1,
        reversible: bool = True,
        axial_pos_emb_shape: Sequence[int] | None = None,
        *,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive(dim=dim, depth=depth)
        if reversible and dim % 2:
            raise ValueError(f"expected dim to be even for a reversible transformer, got {dim}")
        if axial_pos_emb_shape is not None:
            axial_pos_emb_shape = positive_ints("axial_pos_emb_shape", axial_pos_emb_shape)
            if len(axial_pos_emb_shape) != 2:
                raise ValueError(
                    f"expected axial_pos_emb_shape to be (height, width), got {axial_pos_emb_shape}"
                )
        self.dim = dim
        self.depth = depth
        self.reversible = reversible
        self.dim_index = channel_index("dim_index", dim_index, 2)
        self.pos_emb: AxialPositionalEmbedding | nn.Identity = nn.Identity()
        if axial_pos_emb_shape is not None:
            self.pos_emb = AxialPositionalEmbedding(
                dim, axial_pos_emb_shape, self.dim_index, device=device, dtype=dtype
            )

        def attention(axis: int) -> AlongAxis:
            attend = SelfAttention(
                dim, heads, dim_heads, dropout=dropout, device=device, dtype=dtype
            )
            return AlongAxis(axis, 1, _PreNorm(dim, attend, device, dtype))

        def feed_forward() -> _FeedForward:
            return _FeedForward(dim, device, dtype)

        blocks: list[tuple[nn.Module, nn.Module]] = []
        for _ in range(depth):
            blocks.append((attention(2), attention(3)))
            blocks.append((feed_forward(), feed_forward()))
        self.layers: ReversibleSequence | _ResidualSequence = (
            ReversibleSequence(blocks, dropout) if reversible else _ResidualSequence(blocks)
        )

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        resettable = (
            AxialPositionalEmbedding,
            SelfAttention,
            nn.LayerNorm,
            nn.Conv2d,
            ChannelStdNorm,
        )
        for module in self.modules():
            if isinstance(module, resettable):
                module.reset_parameters()

    @takes_distributed
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Transform images.

        Args:
            x: ``(B, C, H, W)``, or with the channels in dim ``dim_index``.
            mask: Bool ``(B, H, W)``, True where a pixel takes part. The others have no influence
                and are 0 in the result: a padded and masked image has the result of the image
                alone.

        Returns:
            A tensor of the shape of x.

        Raises:
            TypeError: If the mask is not bool.
            ValueError: If a shape does not fit, or the mask leaves a sample without pixels.
        """
        check_grid(x, self.dim, self.dim_index, 2)
        check_grid_mask(mask, x, self.dim_index)
        x = self.pos_emb(x).movedim(self.dim_index, 1)
        if mask is not None:
            x = x.masked_fill(~mask.unsqueeze(1), 0.0)
        return self.layers(x, mask).movedim(1, self.dim_index)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"dim={self.dim}, depth={self.depth}, dim_index={self.dim_index}, "
            f"reversible={self.reversible}"
        )
