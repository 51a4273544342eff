"""The built-in model sources: every module defines ``SOURCES``, a tuple of :class:`freqrobust.models.source_table.ModelSource`."""
