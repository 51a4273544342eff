"""Training methods: natural and adversarial training."""
