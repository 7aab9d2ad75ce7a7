"""Benchmarks: one file per property, pure functions on arrays, and the simulations where they are needed."""
