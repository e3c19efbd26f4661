"""
Training a denoiser
===================

A few convolutions around one block of circulant attention, trained for seconds on tiles
of photographs, tested on an unseen photograph.
"""

import torch
from matplotlib import pyplot
from skimage import data
from torch import nn

from circulant_attention import DistanceSimilarity
from circulant_attention.nn import CirculantTransformerBlock

torch.manual_seed(0)
sigma = 25 / 255


def tiles(photograph, size=24):
    """Square tiles of a photograph at half its size, as grey values from 0 to 1."""
    grey = torch.from_numpy(photograph).float().mean(-1) / 255
    grey = nn.functional.avg_pool2d(grey[None], 2)
    return grey.unfold(1, size, size).unfold(2, size, size).reshape(-1, 1, size, size)


clean = torch.cat(
    [
        tiles(photograph)
        for photograph in (data.astronaut(), data.coffee(), data.chelsea())
    ]
)

# %%
# The network estimates the noise, which is subtracted. Its first estimate is zero.
channels = 16
estimate = nn.Sequential(
    nn.Conv2d(1, channels, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(channels, channels, 3, padding=1),
    nn.ReLU(),
    CirculantTransformerBlock(
        channels,
        heads=2,
        window=7,
        similarity=DistanceSimilarity(),
        learn_bandwidth=True,
    ),
    nn.Conv2d(channels, channels, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(channels, 1, 3, padding=1),
)
nn.init.zeros_(estimate[-1].weight)
nn.init.zeros_(estimate[-1].bias)

steps = 400
optimiser = torch.optim.AdamW(estimate.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
losses = []
for _ in range(steps):
    batch = clean[torch.randint(len(clean), (4,))]
    noise = sigma * torch.randn(batch.shape)
    loss = (estimate(batch + noise) - noise).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
    losses.append(loss.item())

# %%
# The unseen photograph. Convolutions and circulant attention take images of any size.
photograph = torch.from_numpy(data.camera()[40:296, 80:400]).float()[None, None] / 255
photograph = nn.functional.avg_pool2d(photograph, 2)
noisy = photograph + sigma * torch.randn(photograph.shape)
with torch.no_grad():
    denoised = noisy - estimate(noisy)

figure, axes = pyplot.subplots(2, 2, figsize=(7.5, 6.4), layout="constrained")
curve, *panels = axes.flat
curve.plot(losses, linewidth=0.8, alpha=0.5)
curve.plot(range(19, steps), torch.tensor(losses).unfold(0, 20, 1).mean(-1), "C0")
curve.axhline(sigma**2, color="gray", linestyle=":")
curve.annotate("no denoising", (steps, sigma**2), ha="right", va="bottom", color="gray")
curve.set(xlabel="step", ylim=(0, None), title="the loss: mean squared error")
for ax, (name, image) in zip(
    panels,
    {"clean": photograph, "before": noisy, "after": denoised}.items(),
    strict=True,
):
    ax.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    ratio = -10 * (image - photograph).square().mean().log10()
    ax.set(
        xticks=[],
        yticks=[],
        title=name if name == "clean" else f"{name}: {ratio:.2f} dB",
    )
