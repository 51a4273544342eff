"""The classes of ImageNet: class ``i`` is the ``i``-th of 1000 WordNet ids (``n01440764``), sorted."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from freqrobust.core.errors import DataError
from freqrobust.core.files import regular_file

CLASSES = 1000
_WORDNET_ID = re.compile(r"n\d{8}")
#: timm has the list among its data files.
_LIST = ("timm", Path("data") / "_info" / "imagenet_synsets.txt")
_OPTION = "classes=FILE, where FILE has the 1000 WordNet ids of ImageNet, one at the start of each line"


def class_indices(path: str | None, spec: str) -> dict[str, int]:
    """The class index of every WordNet id.

    Args:
        path: a file with one id at the start of each line; None stands for the list that timm contains.
        spec: the data spec, for messages.

    Raises:
        DataError: there is no such list.
    """
    if path is not None:
        file = regular_file(path, spec, DataError, "a list of WordNet ids")
    else:
        package = find_spec(_LIST[0])
        locations = [] if package is None else list(package.submodule_search_locations or [])
        found = [Path(location) / _LIST[1] for location in locations if (Path(location) / _LIST[1]).is_file()]
        if not found:
            raise DataError(
                f"{spec}: the classes are not known without timm (pip install 'freqrobust[zoo]'); or give {_OPTION}"
            )
        file = found[0]
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: {file} cannot be read; expected {_OPTION}") from error
    ids = sorted({line.split()[0] for line in lines if line.split() and _WORDNET_ID.fullmatch(line.split()[0])})
    if len(ids) != CLASSES:
        raise DataError(f"{spec}: {file} has {len(ids)} WordNet ids; expected {_OPTION}")
    return {wordnet_id: index for index, wordnet_id in enumerate(ids)}
