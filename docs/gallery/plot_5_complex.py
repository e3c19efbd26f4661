"""
A complex phantom from undersampled k-space
===========================================

Magnetic resonance imaging measures Fourier coefficients of a complex image. Without two
fifths of them, the image is full of artefacts. Attention to magnitude and phase removes
them, alternating with a step that restores the measured coefficients.
"""

import torch
from matplotlib import pyplot
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

from circulant_attention.denoising import nonlocal_means

# %%
# The phantom, with a smooth phase as in a scanner.
torch.manual_seed(0)
size = 128
magnitude = torch.from_numpy(
    resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
).float()
down, right = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
truth = magnitude * torch.exp(1j * (2 * down + 1.5 * right**2 - down * right))

# %%
# Each line of k-space is one measurement: the 24 in the middle, and others at random.
kept = torch.rand(size) < 0.45
kept[size // 2 - 12 : size // 2 + 12] = True
mask = torch.fft.ifftshift(kept)[:, None]
noise = 0.01 * torch.randn(size, size, dtype=torch.complex64)
measured = mask * (torch.fft.fft2(truth, norm="ortho") + noise)
print(f"{int(kept.sum())} of {size} lines are measured")

# %%
# Start with zeros for the missing coefficients. Then denoise and restore the measured
# ones in turn, with less smoothing in each step.
start = torch.fft.ifft2(measured, norm="ortho")
image = start
for strength in torch.linspace(0.10, 0.02, 12).tolist():
    image = nonlocal_means(image[None], strength, window=15, patch=5)[0]
    spectrum = torch.fft.fft2(image, norm="ortho")
    image = torch.fft.ifft2(torch.where(mask, measured, spectrum), norm="ortho")

# %%
# Magnitudes above; below, phases where the magnitude is not zero.
figure, axes = pyplot.subplots(2, 3, figsize=(8, 5.7), layout="constrained")
images = {"truth": truth, "missing set to zero": start, "with attention": image}
for (upper, lower), (name, z) in zip(axes.T, images.items(), strict=True):
    error = (z - truth).norm() / truth.norm()
    upper.imshow(z.abs(), cmap="gray", vmin=0, vmax=1)
    upper.set_title(name if name == "truth" else f"{name}: error {100 * error:.1f} %")
    phase = z.angle().where(truth.abs() > 0.05, torch.nan)
    lower.imshow(
        phase, cmap="twilight", vmin=-torch.pi, vmax=torch.pi, interpolation="nearest"
    )
    for ax in (upper, lower):
        ax.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("magnitude")
axes[1, 0].set_ylabel("phase")
