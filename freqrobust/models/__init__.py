"""Models: from a spec to a module that maps images in [0, 1] to logits."""
