"""The 19 common corruptions as pure functions on image batches; the plugin is ``freqrobust.attacks.corruption``."""
