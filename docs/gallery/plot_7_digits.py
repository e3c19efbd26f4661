"""
Digits, with and without a relative bias
========================================

Attention compares what pixels look like, not where they lie in the window. A relative
bias adds a number for each head and offset to the scores, so that a head can look in a
direction. Two small networks learn to recognise handwritten digits; one of them has the
bias.
"""

import torch
from matplotlib import pyplot
from sklearn.datasets import load_digits
from torch import nn

from circulant_attention import Window
from circulant_attention.nn import CirculantTransformerBlock

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None]
labels = torch.tensor(digits.target)
held_out = torch.arange(len(labels)) % 5 == 0
images = (images - images[~held_out].mean()) / images[~held_out].std()

# %%
# The convolution has one pixel, and the mean over the image forgets positions. Only
# attention lets pixels see each other: the 5 x 5 around each, where the digit does not
# wrap. ``relative_bias=True`` adds 25 parameters per head, whatever the image's size.
channels, heads, epochs = 32, 8, 8
window = Window(5, boundary="truncated")


def network(relative_bias):
    options = {"mlp_ratio": 2, "relative_bias": relative_bias}
    return nn.Sequential(
        nn.Conv2d(1, channels, 1),
        nn.GELU(),
        CirculantTransformerBlock(channels, heads, window, **options),
        CirculantTransformerBlock(channels, heads, window, **options),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


# %%
# The bias starts at zero and has to grow to the size of scores, so it learns faster
# than the weights.
def train(net):
    parameters = dict(net.named_parameters())
    biases = [p for name, p in parameters.items() if "relative_bias" in name]
    others = [p for name, p in parameters.items() if "relative_bias" not in name]
    groups = [{"params": others}, {"params": biases, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups)
    x, t = images[~held_out], labels[~held_out]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, [5e-3, 0.1], total_steps=epochs * (len(t) // 32)
    )
    accuracies = []
    for _ in range(epochs):
        for batch in torch.randperm(len(t))[: len(t) // 32 * 32].split(32):
            loss = nn.functional.cross_entropy(net(x[batch]), t[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            found = net(images[held_out]).argmax(1)
        accuracies.append((found == labels[held_out]).float().mean().item())
    return accuracies


networks, results = {}, {}
for name, relative_bias in {"without": False, "with": True}.items():
    torch.manual_seed(0)
    networks[name] = network(relative_bias)
    results[name] = train(networks[name])
    count = sum(p.numel() for p in networks[name].parameters())
    print(f"{name:8} bias: {count} parameters, {results[name][-1]:.1%} recognised")

# %%
# What the heads of the first block learned, beside the curves. Each looks another way.
figure = pyplot.figure(figsize=(7.5, 3.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25])
ax = left.subplots()
for name, accuracies in results.items():
    ax.plot(range(1, epochs + 1), accuracies, label=f"{name} bias")
ax.set(xlabel="epoch", ylabel="recognised", ylim=(0, 1))
ax.legend(loc="lower right")
bias = networks["with"][2].attention.relative_bias.detach()
for head, ax in zip(bias, right.subplots(2, 4).flat, strict=True):
    ax.imshow(head, cmap="RdBu", vmin=-4, vmax=4)
    ax.set(xticks=[], yticks=[])
right.suptitle("the relative bias of each head")
