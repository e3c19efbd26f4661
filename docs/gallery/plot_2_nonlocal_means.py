"""
Non-local means of a photograph
===============================

Denoising by attention: the features of a pixel are the patch around it, the similarity
is the distance of patches, the values are the noisy pixels. For comparison:
scikit-image's non-local means with the same window, patch and bandwidth.
"""

import torch
from matplotlib import pyplot
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_nl_means

from circulant_attention.denoising import nonlocal_means

torch.manual_seed(0)
clean = torch.from_numpy(data.camera()[60:220, 130:330]).float() / 255
sigma = 20 / 255
noisy = clean + sigma * torch.randn(clean.shape)

# %%
# One call each. This package compares patches of a slightly smoothed image and wraps at
# the borders. scikit-image subtracts the expected noise from the distances and reflects
# at the borders.
window, patch, bandwidth = 21, 7, 0.7
ours = nonlocal_means(
    noisy[None], sigma, window=window, patch=patch, bandwidth=bandwidth
)[0]
theirs = denoise_nl_means(
    noisy.double().numpy(),
    patch_size=patch,
    patch_distance=window // 2,
    h=bandwidth * sigma,
    sigma=sigma,
)

# %%
# The peak signal-to-noise ratio: higher is better.
images = {"clean": clean, "noisy": noisy, "this package": ours, "scikit-image": theirs}
figure, axes = pyplot.subplots(2, 2, figsize=(7.5, 6.4), layout="constrained")
for ax, (name, image) in zip(axes.flat, images.items(), strict=True):
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[], title=name)
    if name != "clean":
        ratio = peak_signal_noise_ratio(
            clean.numpy(), torch.as_tensor(image).float().numpy()
        )
        ax.set_title(f"{name}: {ratio:.2f} dB")
