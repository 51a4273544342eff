"""Thresholds, regression tests and sequential checks."""
