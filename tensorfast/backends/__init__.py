"""Backends for other libraries: each a package of its own, which imports that library."""
