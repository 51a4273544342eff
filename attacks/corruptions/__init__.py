"""The corruptions, each a pure function on image batches in a module of its name; the plugin is ``freqrobust.attacks.corruption``.

A module without a leading underscore is a corruption: it defines ``CORRUPTION``, a
:class:`freqrobust.attacks.corruptions._table.Definition`. Nothing else has to be changed for a new one.
"""
