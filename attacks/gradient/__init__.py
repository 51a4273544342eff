"""Projected gradient ascent: regions, steps and the attack that runs them."""
