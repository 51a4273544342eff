"""Pure functions on tensors: seeded noise, frequency, norms, losses, statistics."""
