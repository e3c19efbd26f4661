"""The Circulant: a block-circulant sparse matrix as a value."""
