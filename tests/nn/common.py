"""Embeddings, and what is known of them."""

import numpy as np
import torch

OF = ["eigenvalues", "singular_values"]


def embeddings(n, d, dtype=torch.float64, seed=0):
    """Embeddings with a mean, and directions of different variance."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=g, dtype=torch.float64)
    return (z * torch.linspace(1, 3, d, dtype=torch.float64) + 2).to(dtype)


def with_eigenvalues(values, n=12, seed=0):
    """Centred embeddings whose covariance has these eigenvalues, to rounding."""
    g = torch.Generator().manual_seed(seed)
    d = len(values)
    z = torch.randn(n, d, generator=g, dtype=torch.float64)
    left = torch.linalg.qr(z - z.mean(0)).Q
    right = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
    return left * torch.tensor(values, dtype=torch.float64).sqrt() @ right


def numpy_share(z, k, center, of="eigenvalues"):
    z = z.double().numpy()
    if center:
        z = z - z.mean(0)
    if of == "singular_values":
        values = np.linalg.svd(z, compute_uv=False)
    else:
        values = np.linalg.eigvalsh(z.T @ z)[::-1]
    return values[:k].sum() / values.sum() if values.sum() > 0 else 1.0


def exact_gradient(z, k=1, of="eigenvalues"):
    """Gradient of the logarithm in float64, by torch's own derivative of singular values."""
    z = z.detach().double().requires_grad_()
    lengths = torch.linalg.svdvals(z - z.mean(0))
    if of == "eigenvalues":
        lengths = lengths.square()
    return torch.autograd.grad((lengths[:k].sum() / lengths.sum()).log(), z)[0]


def relative(found, expected):
    return float((found.double() - expected).norm() / expected.norm())
