"""The adapters for losses of embeddings, with the signature of `bench.rivals`.

A call is some steps, each forward and backward. Each implementation's answer is its last gradient
and, as they have not all the same formula, the gradient of its own formula in float64.
"""

import torch

from bench.rivals import Run

PCA = "torch-pca"


def by_eigenvalues(z):
    """Share of the largest eigenvalue of the covariance, as plain torch has it."""
    z = z - z.mean(0)
    values = torch.linalg.eigvalsh(z.t() @ z)
    return (values[-1] / values.sum()).log()


def by_pca(z):
    """Share of the two largest singular values, by a low-rank PCA: as first published."""
    s = torch.pca_lowrank(z, q=z.shape[1], center=False)[1]
    return (s[:2].sum() / s.sum()).log()


def by_singular_values(z):
    """Share of the two largest singular values, by an SVD, without a draw at random."""
    s = torch.linalg.svdvals(z)
    return (s[:2].sum() / s.sum()).log()


def _gradient(loss, x):
    z = x.detach().requires_grad_()
    loss(z).backward()
    return z.grad


def _adapter(loss, exact):
    def adapter(problem, data, sweeps):
        def call():
            for _ in range(sweeps):
                gradient = _gradient(loss, data.x)
            return gradient

        return [Run(call, lambda found: (found, _gradient(exact, data.x.double())))]

    adapter.__doc__ = loss.__doc__
    return adapter


def _ours(z):
    """`tensorfast.nn.spectral_uniformity_loss`."""
    from tensorfast.nn import spectral_uniformity_loss

    return spectral_uniformity_loss(z)


def error_of(data, answer):
    """Return the relative error of a gradient, in the norm."""
    found, exact = answer
    return float((found - exact).norm() / exact.norm())


EMBEDDINGS = {
    "tensorfast": _adapter(_ours, by_eigenvalues),
    PCA: _adapter(by_pca, by_singular_values),
    "torch-eigvalsh": _adapter(by_eigenvalues, by_eigenvalues),
}
