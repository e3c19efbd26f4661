"""Find whether a bag of handwritten digits holds a nine.

Data: the 1797 digits of scikit-learn, 8 x 8 pixels; every fifth is kept for the test. A bag holds
three to ten of them; half of the bags hold at least one nine. Only bags have labels: fused
attention has to find the relevant digit, and its weights show it.
"""

import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from circulant_attention.nn import FusedAttention

SIZES = 3, 10
STEPS = 250
ACCURACY = 0.96


class BagClassifier(nn.Module):
    """A small network for every digit, fused attention over the bag, one logit."""

    def __init__(self, features: int = 32) -> None:
        super().__init__()
        self.digit = nn.Sequential(
            nn.Conv2d(1, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * features, features),
            nn.ReLU(),
        )
        self.pool = FusedAttention(
            nn.Linear(features, features), nn.Linear(features, features), scale=1.0
        )
        self.head = nn.Linear(features, 1)

    def forward(self, bags: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B,)`` and weights ``(B, L)`` of bags ``(B, L, 1, 8, 8)``."""
        features = self.digit(bags.flatten(0, 1)).unflatten(0, bags.shape[:2])
        pooled, weights = self.pool(features, mask, need_weights=True)
        return self.head(pooled).squeeze(1), weights


class Bags:
    """Draws bags of some digits."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.nines = (labels == 9).nonzero().squeeze(1)
        self.others = (labels != 9).nonzero().squeeze(1)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bags, their masks, which bags hold a nine, and which digits are nines."""
        most = SIZES[1]
        chosen = self.others[torch.randint(len(self.others), (count, most))]
        mask = torch.arange(most) < torch.randint(SIZES[0], most + 1, (count, 1))
        label = torch.arange(count) % 2 == 0
        # Every other bag gets one to three nines.
        places = torch.rand(count, most).masked_fill(~mask, 2).argsort(1).argsort(1)
        is_nine = (places < torch.randint(1, 4, (count, 1))) & label.unsqueeze(1)
        chosen[is_nine] = self.nines[torch.randint(len(self.nines), (int(is_nine.sum()),))]
        return self.images[chosen], mask, label, is_nine


def main() -> None:
    """Train, then print and check the accuracy."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    tested = torch.arange(len(labels)) % 5 == 0
    training, test = (Bags(images[which], labels[which]) for which in (~tested, tested))

    net = BagClassifier()
    optimiser = torch.optim.AdamW(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=STEPS)
    start = time.perf_counter()
    for step in range(1, STEPS + 1):
        bags, mask, label, _ = training.draw(64)
        logits, _ = net(bags, mask)
        loss = functional.binary_cross_entropy_with_logits(logits, label.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: loss {loss.item():.4f}, {time.perf_counter() - start:.0f} s")

    net.eval()
    bags, mask, label, is_nine = test.draw(2000)
    with torch.no_grad():
        logits, weights = net(bags, mask)
    accuracy = ((logits > 0) == label).float().mean().item()
    share = (weights * is_nine).sum(1)[label].mean().item()
    by_chance = (is_nine.sum(1) / mask.sum(1))[label].mean().item()
    print(f"accuracy on 2000 bags: {accuracy:.4f} (at least {ACCURACY})")
    print(f"attention on the nines: {share:.2f} (their share of a bag: {by_chance:.2f})")
    assert accuracy >= ACCURACY


if __name__ == "__main__":
    main()
