"""Datasets: from a spec to images and labels; images in files are decoded when they are used."""
