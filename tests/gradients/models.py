"""Networks whose gradients are known in closed form."""

import torch
from torch import Tensor, nn

DIMS = (1, 3, 4)


class Linear(nn.Module):
    """logits = scale * W x + b."""

    def __init__(self, classes: int = 4, scale: float = 1.0, seed: int = 0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, 12, generator=g))
        self.register_buffer("bias", torch.randn(classes, generator=g))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x.flatten(1) @ self.weight.T + self.bias)

    def margin_loss_gradient(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            other = self(x).scatter(1, y[:, None], -torch.inf).argmax(1)
            return (self.scale * (self.weight[other] - self.weight[y])).reshape(x.shape)


class Quadratic(nn.Module):
    """Two classes: logits (0, x A x / 2 + b x), so that the margin loss of label 0 has gradient A x + b."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(1)
        a = torch.randn(12, 12, generator=g)
        self.a, self.b = nn.Parameter(a + a.T), nn.Parameter(torch.randn(12, generator=g))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        value = ((flat @ self.a) * flat).sum(1) / 2 + flat @ self.b
        return torch.stack([torch.zeros_like(value), value], 1)

    def truth(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.a + self.b).reshape(x.shape).detach()


class NoisyGradient(nn.Module):
    """Margin loss of label 0 is (w + sigma * n) x with n standard normal, one draw per example and call."""

    def __init__(self, sigma: float):
        super().__init__()
        self.w = nn.Parameter(torch.randn(12, generator=torch.Generator().manual_seed(2)))
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        value = ((self.w + self.sigma * torch.randn_like(flat)) * flat).sum(1)
        return torch.stack([torch.zeros_like(value), value], 1)


def batch(n: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, *DIMS, generator=g), torch.zeros(n, dtype=torch.int64)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1)
