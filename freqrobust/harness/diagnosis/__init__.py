"""Checks of robust accuracies, and the verdict on them."""
