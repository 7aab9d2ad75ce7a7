"""Benchmarks: one file per property, pure functions on arrays, and what must be run where a simulation is needed."""
