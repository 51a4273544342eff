"""The version of freqrobust, as reports and the command line state it."""

__version__ = "0.1.0"
