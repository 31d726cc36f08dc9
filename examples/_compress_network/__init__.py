"""Kernels and networks of convolutions, decomposed: edge filters, trained networks, digits."""
