"""ylg: two-dimensional local sparse attention, and GANs built on it."""
