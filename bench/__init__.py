"""Benchmark of tensorfast beside its rivals; ``python bench/run.py`` runs it all."""
