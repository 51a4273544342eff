"""Writes :mod:`freqrobust.core.option_types`: the options of the Python functions, for type checkers and editors.

After a change of the options: ``python -m freqrobust.core.option_signatures > freqrobust/core/option_types.py``. A test
compares the file with the options.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from freqrobust.core.config import AnalyzeConfig, EvalConfig, SaveConfig, VerifyConfig
from freqrobust.core.options import Options
from freqrobust.core.training_config import ReproduceConfig, TrainConfig

#: The options of each function, and those of them that are parameters of their own.
FUNCTIONS: dict[str, tuple[type[Options], frozenset[str]]] = {
    "EvaluateOptions": (EvalConfig, frozenset({"model", "data"})),
    "AnalyzeOptions": (AnalyzeConfig, frozenset({"model", "data"})),
    "SaveOptions": (SaveConfig, frozenset({"model", "data"})),
    "VerifyOptions": (VerifyConfig, frozenset({"model", "data"})),
    "TrainOptions": (TrainConfig, frozenset()),
    "ReproduceOptions": (ReproduceConfig, frozenset()),
}
#: What a function accepts where the field has another type, to which it converts the value.
ACCEPTED = {
    "Names": "str | Sequence[str]",
    "Specs": "Any",
    "Whole": "int",
    "Real": "float",
    "Text": "str | PathLike[str]",
    "FilePath": "str | PathLike[str]",
    "BatchSize": 'int | Literal["auto"]',
    "ImageSize": "str | int | tuple[int, int]",
}
HEADER = '''"""The options of the Python functions by name and type; written by :mod:`freqrobust.core.option_signatures`.

The text of each option is its description in :mod:`freqrobust.core.config` or :mod:`freqrobust.core.training_config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal, TypedDict
'''


def source() -> str:
    """The content of ``freqrobust/core/option_types.py``."""
    return "\n\n".join([HEADER, *("\n".join(_lines(name)) + "\n" for name in FUNCTIONS)])


def _lines(name: str) -> Iterator[str]:
    cls, without = FUNCTIONS[name]
    yield f"class {name}(TypedDict, total=False):"
    yield f'    """The options of ``{cls.__name__}``."""'
    yield ""
    for field in cls.model_fields:
        if field not in without:
            yield f"    {field}: {_accepted(cls, field)}"


def _accepted(cls: type[Options], field: str) -> str:
    """The type of an option as the source of its class declares it, with what is converted to it."""
    written = [vars(owner).get("__annotations__", {}) for owner in cls.__mro__]
    declared = next(annotations[field] for annotations in written if field in annotations)
    plain = re.sub(r"Annotated\[(.*), BeforeValidator\(depth\)\]", r"bool | \1", declared).replace("'", '"')
    return re.sub(r"\b(" + "|".join(ACCEPTED) + r")\b", lambda match: ACCEPTED[match[1]], plain)


if __name__ == "__main__":
    print(source(), end="")
