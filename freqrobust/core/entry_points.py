"""Entry points of installed packages, by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from freqrobust.core.errors import PluginError


def declared(group: str, what: str) -> dict[str, EntryPoint]:
    """The entry points of a group.

    Args:
        group: its name.
        what: what the group holds, in the plural, for messages.

    Raises:
        PluginError: two packages declare the same name for different objects.
    """
    entries: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = entries.get(entry.name)
        if other is not None and other.value != entry.value:
            raise PluginError(
                f"two {what} are named {entry.name!r}: {other.value} and {entry.value}; "
                f"uninstall one of the packages that declare them"
            )
        entries[entry.name] = entry
    return entries
