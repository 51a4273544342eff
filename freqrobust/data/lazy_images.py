"""Images that are made when they are used: what datasets and plugins may rely on."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, NoReturn

import torch
from typing_extensions import Self

_ADVICE = "the images are decoded when they are used: take data.batch(index, device), or data.in_memory().images"


class LazyImages(ABC):
    """Images ``(N, C, H, W)`` that are made when they are indexed: chosen rows of something that makes them.

    Attributes:
        shape: ``(N, C, H, W)``.
        dtype: uint8 or float32.
    """

    dtype: torch.dtype

    def __init__(self, rows: torch.Tensor, shape: tuple[int, int, int], behind: torch.Tensor | None = None) -> None:
        self._rows = rows
        # what is used after these rows: by default they are used again
        self._behind = rows if behind is None else behind
        self.shape = torch.Size((len(rows), *shape))

    @abstractmethod
    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        """The images of these rows."""

    @abstractmethod
    def _prefetch(self, rows: torch.Tensor) -> None:
        """Begin to make the images of these rows, and give up those that were announced before."""

    @abstractmethod
    def all(self) -> torch.Tensor:
        """All images as a tensor, which a cache in memory does not keep a second time.

        Raises:
            DataError: they do not fit into memory, or a file cannot be decoded.
        """

    @property
    @abstractmethod
    def identity(self) -> str:
        """Hash of what determines the images."""

    @property
    @abstractmethod
    def stays(self) -> bool:
        """Whether an image stays in memory once it was used."""

    @property
    @abstractmethod
    def growth(self) -> int:
        """Bytes by which the memory grows until every image was used."""

    @property
    @abstractmethod
    def to_decode(self) -> int | None:
        """Images that another run has to decode once; None where it decodes an image whenever it is used."""

    @abstractmethod
    def decode(self, positions: torch.Tensor) -> None:
        """Decode the images at these positions, also where they are kept.

        Raises:
            ImageFileError: a file cannot be decoded, or has changed.
        """

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The images at these positions: an integer, a slice, or a tensor of int64 or bool.

        Raises:
            ImageFileError: a file cannot be decoded, or has changed.
        """
        if isinstance(index, tuple):
            raise TypeError(f"only the first axis can be indexed; {_ADVICE}")
        rows = self._rows[index]
        images = self._read(rows.reshape(-1))
        return images if rows.dim() else images[0]

    def _of(self, rows: torch.Tensor, behind: torch.Tensor) -> Self:
        part = copy.copy(self)
        part._rows, part._behind, part.shape = rows, behind, torch.Size((len(rows), *self.shape[1:]))
        return part

    def take(self, index: torch.Tensor | slice) -> Self:
        """The images at these positions; none is made."""
        rows = self._rows[index]
        return self._of(rows, rows)

    def part(self, start: int, stop: int) -> Self:
        """The images at consecutive positions, which know those behind them."""
        return self._of(self._rows[start:stop], self._rows[stop:] if stop < len(self) else self._rows)

    def prefetch(self, index: torch.Tensor, count: int = 0) -> None:
        """Begin to make the images at these positions; those of the last call that were not read are given up.

        Where they are fewer than ``count``, the first ones that are used afterwards are added.
        """
        rows = self._rows[index]
        self._prefetch(torch.cat([rows, self._behind[: max(0, count - len(rows))]]))

    def __deepcopy__(self, memo: object) -> Self:
        return self  # nothing changes it, and its threads cannot be copied

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"there is no {name!r}; {_ADVICE}")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(_ADVICE)

    @classmethod
    def __torch_function__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(_ADVICE)
