"""Datasets: from a spec to images in memory."""
