"""Implementations of the operators: `xla`, `pallas` (JAX), `reference`."""
