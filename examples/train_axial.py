"""Recognise handwritten digits with a reversible axial transformer.

Data: the 1797 digits of scikit-learn, 8 x 8 pixels; every fifth is kept for the test.
"""

import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from circulant_attention.nn import AxialImageTransformer

EPOCHS = 12
ACCURACY = 0.96


class Classifier(nn.Module):
    """Pixels to features, the transformer, the mean over the grid, ten classes."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, dim, 3, padding=1)
        self.transformer = AxialImageTransformer(
            dim, depth=2, heads=4, axial_pos_emb_shape=(8, 8), reversible=True
        )
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, 10)`` of images ``(B, 1, 8, 8)``."""
        return self.head(self.transformer(self.embed(x)).mean(dim=(2, 3)))


def main() -> None:
    """Train, then print and check the accuracy."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    tested = torch.arange(len(labels)) % 5 == 0
    x, y = images[~tested], labels[~tested]

    net = Classifier()
    batch = 64
    steps = EPOCHS * (len(y) // batch)
    optimiser = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    start = time.perf_counter()
    for epoch in range(EPOCHS):
        for chosen in torch.randperm(len(y))[: len(y) // batch * batch].view(-1, batch):
            loss = functional.cross_entropy(net(x[chosen]), y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, {time.perf_counter() - start:.0f} s")

    net.eval()
    with torch.no_grad():
        accuracy = (net(images[tested]).argmax(1) == labels[tested]).float().mean().item()
    print(f"accuracy on {int(tested.sum())} digits: {accuracy:.4f} (at least {ACCURACY})")
    assert accuracy >= ACCURACY


if __name__ == "__main__":
    main()
