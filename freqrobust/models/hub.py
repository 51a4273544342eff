"""Loading weights with other libraries: from the cache of the Hugging Face hub, and tensors only."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

#: Seconds after which the hub counts as unreachable.
_TIMEOUT = 5.0
_PROXIES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


class HubAccess:
    """Lets libraries use the hub inside, or its cache alone where the hub cannot be reached.

    Without a network, ``huggingface_hub`` would repeat each request for half a minute, also for files in its cache.

    Attributes:
        online: whether files can be downloaded; known inside and afterwards.
    """

    def __init__(self) -> None:
        self.online = False
        self._offline_before = False

    def __enter__(self) -> HubAccess:
        from huggingface_hub import constants

        self._offline_before = constants.HF_HUB_OFFLINE
        proxy = any(os.environ.get(name) for name in _PROXIES)
        self.online = not constants.HF_HUB_OFFLINE and (proxy or _reachable(constants.ENDPOINT))
        constants.HF_HUB_OFFLINE = not self.online
        return self

    def __exit__(self, *error: object) -> None:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = self._offline_before

    def missing(self, what: str) -> str:
        """Why ``what`` was not loaded, for a message: the hub does not have it, or cannot be reached."""
        from huggingface_hub import constants

        if self.online:
            return f"{what} is not on the Hugging Face hub, or access to it is restricted"
        why = "HF_HUB_OFFLINE is set" if self._offline_before else "the Hugging Face hub cannot be reached"
        return f"{why}, and {what} is not in its cache, {constants.HF_HUB_CACHE}"


def local_folder(argument: str) -> Path | None:
    """The folder that a model is named by; None where it is the name of a model.

    A path that exists is one, and so is what begins with ``/``, ``.`` or ``~``.
    """
    path = Path(argument).expanduser()
    written_as_path = argument.startswith(("/", "./", "../", "~")) or argument in (".", "..")
    return path if written_as_path or path.is_dir() else None


@contextlib.contextmanager
def weights_only(wanted: bool) -> Iterator[None]:
    """Set whether ``torch.load`` refuses files that can run code, also where another library asks for the opposite."""
    names = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ[names[0] if wanted else names[1]] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _reachable(endpoint: str) -> bool:
    """Whether a server answers; the resolution of names, which has no time limit of its own, included."""
    parts = urlsplit(endpoint)
    answered: list[bool] = []

    def connect() -> None:
        with contextlib.suppress(OSError):
            port = parts.port or (80 if parts.scheme == "http" else 443)
            socket.create_connection((parts.hostname or "", port), timeout=_TIMEOUT).close()
            answered.append(True)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_TIMEOUT)
    return bool(answered)
