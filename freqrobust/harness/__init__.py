"""Opening a run, measuring its cells, assembling its report."""
