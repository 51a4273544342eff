"""The errors that freqrobust raises on purpose.

Each message is one line that says what was expected, what came and what would work. The command line
prints it and exits with code 2.
"""

from __future__ import annotations


class FreqRobustError(Exception):
    """Root of all errors that a user can act on.

    Attributes:
        exit_code: of the command line.
    """

    exit_code = 2


class SpecError(FreqRobustError):
    """A plugin spec, a plugin parameter or an option is wrong."""


class PluginError(FreqRobustError):
    """A plugin breaks its contract: wrong declaration, changed inputs, left its budget."""


class ModelError(FreqRobustError):
    """A model cannot be loaded, or does not map images to logits."""


class DataError(FreqRobustError):
    """A dataset cannot be loaded, or does not fit the model."""


class ImageFileError(DataError):
    """A file of a dataset cannot be decoded, or has changed: the run stops, since it is no matter of one attack or defense."""


class JournalError(FreqRobustError):
    """A run directory cannot be used."""


class SharingError(FreqRobustError):
    """Processes that share a run do not fit together, or some of them are missing."""


class GateError(FreqRobustError):
    """A gate cannot decide: two reports cannot be compared, or what it judges was not measured."""


class ContradictionError(FreqRobustError):
    """A certificate says that a sample is robust, and an attack has found an adversarial example for it."""

    exit_code = 3


class PeerError(FreqRobustError):
    """Another process of the same run has failed; it is the one that says why."""


class TrainingError(FreqRobustError):
    """A training diverged; the last good checkpoint is kept."""

    exit_code = 3
