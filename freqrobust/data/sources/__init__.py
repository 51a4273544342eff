"""The built-in data sources: every module defines ``SOURCES``, a tuple of :class:`freqrobust.data.source_table.DataSource`."""
