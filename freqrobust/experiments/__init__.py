"""Training with probes, and the reproduction of published experiments."""
