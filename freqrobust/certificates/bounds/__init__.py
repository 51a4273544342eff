"""Sound bounds of what a network computes on a set of inputs: tracing, intervals and linear bounds."""
