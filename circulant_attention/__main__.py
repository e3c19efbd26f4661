"""``python -m circulant_attention``: denoises a photograph by circulant attention."""

from circulant_attention.demo.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
