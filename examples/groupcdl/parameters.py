"""Initial parameters, and their projection after a step of training, as in GroupCDL-TIP."""

from __future__ import annotations

import torch
from torch import Tensor

from examples.groupcdl.network import GroupCDL, analyse, synthesise

SIZE = 64  # of the image of the power method
POWERS = 100


@torch.no_grad()
def initialise(net: GroupCDL, generator: torch.Generator) -> GroupCDL:
    """Random kernels, equal in all layers; thresholds of 0.01."""
    kernel = torch.randn(net.dictionary.shape, dtype=net.dictionary.dtype, generator=generator)
    kernel /= operator_norm(kernel, net.config.s, generator)
    for layer in net.layers:
        layer.analysis.copy_(kernel)
        layer.synthesis.copy_(kernel)
        layer.thresholds.zero_()[0] = 0.01
    net.dictionary.copy_(kernel)
    if (similarity := net.nonlocal_similarity) is not None:
        hidden, filters = net.config.hidden, net.config.M
        limit = (6 / (filters + hidden)) ** 0.5
        down = (torch.rand(hidden, filters, 1, 1, generator=generator) * 2 - 1) * limit
        up = torch.rand(filters, hidden, 1, 1, generator=generator) / 2
        up /= (6 + filters + hidden) ** 0.5
        for name, value in (("theta", down), ("phi", down), ("alpha", down), ("beta", up)):
            if (parameter := getattr(similarity, name)) is not None:
                parameter.copy_(value)
        similarity.gamma.fill_(0.8)
    project(net)
    return net


def operator_norm(kernel: Tensor, stride: int, generator: torch.Generator) -> float:
    """The norm of :func:`network.analyse`, by the power method."""
    shape = (1, kernel.shape[1], SIZE, SIZE)
    x = torch.randn(shape, dtype=kernel.dtype, generator=generator)
    for _ in range(POWERS):
        x = x / x.abs().square().sum().sqrt()
        x = synthesise(analyse(x, kernel, stride), kernel, stride)
    return x.abs().square().sum().sqrt().sqrt().item()


@torch.no_grad()
def project(net: GroupCDL) -> None:
    """Back to kernels of norm 1 at most, thresholds >= 0, and weights of the groups in [0, 1]."""
    kernels = [net.dictionary]
    for layer in net.layers:
        kernels += [layer.analysis, layer.synthesis]
        layer.thresholds.clamp_(min=0)
    for kernel in kernels:
        kernel /= kernel.abs().square().sum((2, 3), keepdim=True).sqrt().clamp(min=1)
    if (similarity := net.nonlocal_similarity) is not None:
        similarity.gamma.clamp_(0, 1)
        if similarity.beta is not None:
            similarity.beta.clamp_(0, 1)
