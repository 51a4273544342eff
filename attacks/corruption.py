"""Common corruptions as attacks of kind "shift": generated on the fly, or read from the published files."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.attacks.corruptions._table import Constants, Definition, definition, module_of, names
from freqrobust.core.errors import DataError, FreqRobustError, PluginError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.plugins.base import Attack
from freqrobust.plugins.corruption_names import constant_set

if TYPE_CHECKING:
    import torch
    from torch import nn

    from freqrobust.attacks.corruptions._textures import Folder, Textures
    from freqrobust.data.corruption_files import PublishedFiles
    from freqrobust.plugins.context import AttackContext
    from freqrobust.plugins.dataset import ImageDataset

#: Added before 8-bit truncation, in levels: far above rounding errors, far below a level.
_TRUNCATION_MARGIN = 1e-3


class Corruption(Attack):
    """A common corruption at a severity of 1 to 5.  (Hendrycks and Dietterich, ICLR 2019)"""

    kind: ClassVar[Literal["adversarial", "shift"]] = "shift"
    needs_gradient: ClassVar[bool] = False

    name: str = Field(description=f"one of {', '.join(names())}", examples=["fog"])
    severity: int = Field(ge=1, le=5, description="1 (mild) to 5", examples=[3])
    constants: Literal["auto", "cifar", "imagenet"] = Field(
        "auto", description="those published for images of 32 or 224 pixels; auto: imagenet from 64 pixels on"
    )
    eight_bit: bool = Field(True, description="truncate to 8 bits, as the published files are")
    frost: str | None = Field(None, description="a folder of pictures of frost; default: procedural textures")
    files: str | None = Field(None, description="read the published files (CIFAR-C, ImageNet-C) in this folder instead")

    @model_validator(mode="after")
    def _known(self) -> Any:
        if self.name not in names():
            raise ValueError(f"unknown corruption {self.name!r}{near_miss(self.name, names())} ({', '.join(names())})")
        if self.files is not None:
            if extra := self.model_fields_set & {"constants", "eight_bit", "frost"}:
                raise ValueError(f"parameter {min(extra)!r} is of no use with 'files': those images are finished")
            try:
                assert self.resolved_params()
            except FreqRobustError as error:
                raise ValueError(str(error)) from error
        return self

    def code_modules(self) -> tuple[str, ...]:
        return (module_of(self.name),)

    @cached_property
    def published(self) -> PublishedFiles:
        """The published files in the folder ``files``."""
        from freqrobust.data.corruption_files import published

        assert self.files is not None
        return published(self.files)

    @cached_property
    def _file_hash(self) -> str:
        return self.published.fingerprint(self.name, self.severity)

    def resolved_params(self) -> dict[str, str]:
        """Whether the images are generated; for published files also the hash of their content."""
        if self.files is None:
            return {"source": "generated"}
        return {"source": "files", "sha256": self._file_hash}

    def check_data(self, data: ImageDataset) -> None:
        """Refuse images that the corruption is not defined for, and files of other images.

        Raises:
            SpecError: the images are too small, or have a wrong number of channels.
            DataError: the files or textures do not match the data.
        """
        if self.files is not None:
            self._check_files(data)
            return
        channels, height, width = data.shape
        corruption = self._definition
        if corruption.channels and channels not in corruption.channels:
            wanted = " or ".join(map(str, corruption.channels))
            raise SpecError(
                f"{self.name} takes images of {wanted} channels, but these have {channels}: {corruption.why}"
            )
        least, why = corruption.least_side(self._constants(height, width))
        if min(height, width) < least:
            raise SpecError(
                f"{self.name} at severity {self.severity} takes sides of at least {least} pixels, but the images are "
                f"{height} x {width}: {why}"
            )
        if corruption.textured and self.frost is not None:
            self._folder(height, width).check(height, width)

    def _check_files(self, data: ImageDataset) -> None:
        labels = self.published.labels(self.name, self.severity)
        where = f"{self.files}: {self.name} at severity {self.severity}"
        if len(labels) <= int(data.ids.max()):
            raise DataError(f"{where} has {len(labels)} images, but {data.spec} has ids up to {int(data.ids.max())}")
        if not bool((labels[data.ids] == data.labels).all()):
            raise DataError(f"{where} was made for other images than {data.spec}: some labels differ")
        first = self.published.images(self.name, self.severity, data.ids[:1])
        if tuple(first.shape[1:]) != data.shape:
            raise DataError(f"{where} has images {tuple(first.shape[1:])}, but {data.spec} has {data.shape}")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        if self.files is not None:
            stored = self.published.images(self.name, self.severity, context.ids.cpu())
            if stored.shape != images.shape:
                raise PluginError(
                    f"corruption: expected files of images {tuple(images.shape[1:])}, but got {tuple(stored.shape[1:])}"
                )
            return stored.to(images.device).float().div_(255)
        from freqrobust.attacks.corruptions._draws import Draws

        draws = Draws(context.ids, context.seed, f"corruption {self.name} {self.severity}")
        height, width = images.shape[-2:]
        options = {"textures": self._textures(height, width)} if self._definition.textured else {}
        corrupted = self._definition.apply(images, self._constants(height, width), draws, **options).clamp_(0, 1)
        return corrupted.mul_(255).add_(_TRUNCATION_MARGIN).floor_().div_(255) if self.eight_bit else corrupted

    @property
    def _definition(self) -> Definition:
        return definition(self.name)

    def _set(self, height: int, width: int) -> str:
        return constant_set(height, width) if self.constants == "auto" else self.constants

    def _constants(self, height: int, width: int) -> Constants:
        return self._definition.constants(self._set(height, width), self.severity)

    def _folder(self, height: int, width: int) -> Folder:
        from freqrobust.attacks.corruptions._textures import folder

        assert self.frost is not None
        return folder(self.frost, 0.2 if self._set(height, width) == "cifar" else 1.0)

    def _textures(self, height: int, width: int) -> Textures:
        from freqrobust.attacks.corruptions._textures import Procedural

        return Procedural() if self.frost is None else self._folder(height, width)
