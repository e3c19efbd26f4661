"""Programs that use circulant_attention."""
