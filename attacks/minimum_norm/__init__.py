"""Searches for the nearest adversarial example of every sample, which the attacks without a budget run."""
