"""Files of events for TensorBoard, where it is installed (the extra ``tensorboard``): names and the writer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from freqrobust.core.errors import SpecError
from freqrobust.core.text import describe_error, shortened

#: What a tag may have besides letters and digits.
_OTHER = re.compile(r"[^-/\w. ]")


def legal_tag(text: str) -> str:
    """A text as part of a tag: other characters are replaced by underscores."""
    return _OTHER.sub("_", text)


def summary_writer() -> Callable[..., Any]:
    """Torch's ``SummaryWriter``.

    Raises:
        SpecError: TensorBoard is installed, but cannot be imported.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # an installation that does not fit the others can raise any exception
        raise SpecError(
            f"tensorboard is installed, but cannot be imported ({shortened(describe_error(error), 150)}); "
            f"install another version, or uninstall it to train without its events"
        ) from error
    return SummaryWriter
