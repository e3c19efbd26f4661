"""The sparsity picture that SparseArrays draws of a matrix, in Braille characters."""

from __future__ import annotations

import math

from .array import Circulant

# A Braille character has two columns of four dots; this is each dot's bit, [row][column].
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
EMPTY = 0x2800


def braille_picture(a: Circulant, max_height: int, max_width: int) -> list[str]:
    """Draw the pattern of one N x N matrix with a dot wherever an entry lands.

    A matrix with more rows or columns than there is room for dots is shrunk; the picture has room
    for the four corners of its bracket at least.

    Args:
        a: the array whose pattern is drawn.
        max_height: the most lines.
        max_width: the most characters in a line.
    """
    n = a.pixels
    dots = n
    if n > 4 * max_height or n > 2 * max_width:
        dots = math.floor(min(2 * max_width / n, 4 * max_height / n) * n)
    height, width = max(dots, 8), max(dots, 4)
    dot_row, dot_column = (
        # Dots count from one, and halves go to the even number among these.
        [round(i * max(1, count - 1) / max(1, n - 1) + 1) for i in range(n)]
        for count in (height, width)
    )
    cells = [[EMPTY] * ((width - 1) // 2 + 1) for _ in range((height - 1) // 4 + 1)]
    for row in range(1, n + 1):
        line, inside_line = divmod(dot_row[row - 1] - 1, 4)
        for dot in {dot_column[column - 1] for column in a.columns(row).tolist()}:
            character, inside = divmod(dot - 1, 2)
            cells[line][character] |= DOTS[inside_line][inside]
    lines = ["".join(map(chr, line)) for line in cells]
    left = ["⎡", *"⎢" * (len(lines) - 2), "⎣"]
    right = ["⎤", *"⎥" * (len(lines) - 2), "⎦"]
    return [a + line + b for a, line, b in zip(left, lines, right, strict=True)]
