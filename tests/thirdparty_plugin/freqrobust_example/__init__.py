"""Plugins for freqrobust from another package."""
