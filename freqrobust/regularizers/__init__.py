"""Penalties that are added to the training loss."""
