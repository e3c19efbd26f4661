"""The timed problems, by name."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Attention of q, k, v, each ``(batch, channels, *spatial)``, in float32.

    Every head has ``channels / heads`` channels; the window is the same in each spatial dim. The
    similarity is the dot product, or minus half the squared distance.
    """

    name: str
    batch: int
    channels: int
    spatial: tuple[int, ...]
    window: int
    heads: int = 1
    distance: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of q, k and v."""
        return (self.batch, self.channels, *self.spatial)

    @property
    def group_shape(self) -> tuple[int, ...]:
        """The shape of q, k and v with one group per (batch, head) pair."""
        return (self.batch * self.heads, self.channels // self.heads, *self.spatial)

    @property
    def pixels(self) -> int:
        """N, the size of the grid."""
        return math.prod(self.spatial)

    @property
    def offsets(self) -> int:
        """K, the size of the window and the number of stored entries in a row of A."""
        return self.window ** len(self.spatial)

    @property
    def windows(self) -> list[int]:
        """The window, once per spatial dim."""
        return [self.window] * len(self.spatial)

    @property
    def scale(self) -> float:
        """The factor of the similarities, 1 / sqrt(channels of a head)."""
        return 1 / math.sqrt(self.channels // self.heads)

    @property
    def product_flops(self) -> int:
        """Floating-point operations of one product of a matrix with the pattern of A.

        A multiplication and an addition for each batch, channel, pixel and offset. Work outside of
        the window does not count, so that an entry gains nothing by it.
        """
        return 2 * self.batch * self.channels * self.pixels * self.offsets

    def __str__(self) -> str:
        heads = f", {self.heads} heads" if self.heads > 1 else ""
        distance = ", distance" if self.distance else ""
        return f"{' x '.join(map(str, self.shape))}, window {self.window}{heads}{distance}"


CASES = {
    case.name: case
    for case in (
        Case("readme", 2, 64, (128, 96), 15),
        Case("large_window", 1, 64, (240, 160), 35),
        Case("heads", 2, 64, (128, 96), 15, heads=4),
        Case("many_small", 8, 32, (64, 64), 7),
        Case("volume", 1, 32, (24, 32, 40), 5),
        Case("signal", 4, 64, (8192,), 63),
    )
}
# The group of a GroupCDL network on a small photograph.
GROUP = Case("group", 1, 64, (96, 128), 35, distance=True)
# The codes of a whole GroupCDL network.
NETWORK = Case("network", 1, 64, (96, 128), 35, distance=True)
# The problems of the CPU kernels.
KERNEL_CASES = {
    case.name: case
    for case in (
        CASES["readme"],
        CASES["large_window"],
        GROUP,
        CASES["heads"],
        CASES["many_small"],
    )
}
