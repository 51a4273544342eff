"""Errors, files, user code, source hashes, progress: what everything else stands on."""
