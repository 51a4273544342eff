"""The 19 common corruptions as attacks of kind "shift": generated on the fly, or read from the published files."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.attacks.corruptions.constants import TABLES, Constants
from freqrobust.core.errors import DataError, FreqRobustError, PluginError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.plugins.base import Attack
from freqrobust.plugins.corruption_names import COMMON, EXTRA, constant_set

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from freqrobust.data.corruption_files import PublishedFiles
    from freqrobust.plugins.context import AttackContext
    from freqrobust.plugins.dataset import ImageDataset

NAMES = (*COMMON, *EXTRA)
#: Numbers of channels that a corruption is defined for, and why; any number where it is not named.
CHANNELS: dict[str, tuple[tuple[int, ...], str]] = {
    "saturate": ((3,), "only colours have a saturation"),
    "snow": ((1, 3), "it whitens by the brightness of colour or grayscale images"),
    "frost": ((1, 3), "its textures are colour or grayscale"),
    "spatter": ((1, 3), "its drops are colour or grayscale"),
    "jpeg_compression": ((1, 3), "JPEG files are colour or grayscale"),
}
#: Added before 8-bit truncation, in levels: far above rounding errors, far below a level.
_TRUNCATION_MARGIN = 1e-3


class Corruption(Attack):
    """A common corruption at a severity of 1 to 5.  (Hendrycks and Dietterich, ICLR 2019)"""

    kind: ClassVar[Literal["adversarial", "shift"]] = "shift"
    needs_gradient: ClassVar[bool] = False

    name: str = Field(description="one of the 19: gaussian_noise, fog, jpeg_compression, ...", examples=["fog"])
    severity: int = Field(ge=1, le=5, description="1 (mild) to 5", examples=[3])
    constants: Literal["auto", "cifar", "imagenet"] = Field(
        "auto", description="those published for 32 or for 224 pixels; auto: imagenet from sides of 64 on"
    )
    eight_bit: bool = Field(True, description="truncate to 8 bits, as the published files are")
    frost: str | None = Field(None, description="a folder of frost pictures; default: made procedurally")
    files: str | None = Field(None, description="read the published files (CIFAR-C, ImageNet-C) in this folder instead")

    @model_validator(mode="after")
    def _known(self) -> Any:
        if self.name not in NAMES:
            raise ValueError(f"unknown corruption {self.name!r}{near_miss(self.name, NAMES)} ({', '.join(NAMES)})")
        if self.files is not None:
            if extra := self.model_fields_set & {"constants", "eight_bit", "frost"}:
                raise ValueError(f"parameter {min(extra)!r} is of no use with 'files': those images are finished")
            try:
                assert self.resolved_params()
            except FreqRobustError as error:
                raise ValueError(str(error)) from error
        return self

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
        """Where the images come from, and for files what they hold: another content is another attack."""
        if self.files is None:
            return {"source": "generated"}
        return {"source": "files", "sha256": self._file_hash}

    def check_data(self, data: ImageDataset) -> None:
        """Refuse images that the corruption cannot take, and files of other images.

        Raises:
            SpecError: the size or the number of channels does not do.
            DataError: the files or textures do not fit the data.
        """
        if self.files is not None:
            self._check_files(data)
            return
        channels, height, width = data.shape
        takes, why = CHANNELS.get(self.name, ((channels,), ""))
        if channels not in takes:
            wanted = " or ".join(map(str, takes))
            raise SpecError(f"{self.name} takes images of {wanted} channels, but these have {channels}: {why}")
        least, why = self._least_side(height, width)
        if min(height, width) < least:
            raise SpecError(
                f"{self.name} at severity {self.severity} takes sides of at least {least} pixels, but the images are "
                f"{height} x {width}: {why}"
            )
        if self.name == "frost" and self.frost is not None:
            self._folder(height, width).check(height, width)

    def _least_side(self, height: int, width: int) -> tuple[int, str]:
        c = self._constants(height, width)
        if self.name == "glass_blur":
            return 2 * int(c[1]) + 1, f"it moves pixels by up to {c[1]:g} in every direction"
        if self.name == "pixelate":
            return next(n for n in range(1, 99) if int(n * c[0])), f"it keeps {c[0]:g} of the pixels of a side"
        if self.name == "elastic_transform":
            return 3, "its affine part moves three points a third of the side apart"
        return 1, ""

    def _check_files(self, data: ImageDataset) -> None:
        labels = self.published.labels(self.name, self.severity)
        where = f"{self.files}: {self.name} at severity {self.severity}"
        if len(labels) <= int(data.ids.max()):
            raise DataError(f"{where} has {len(labels)} images, but {data.spec} has ids up to {int(data.ids.max())}")
        if not bool((labels[data.ids] == data.labels).all()):
            raise DataError(f"{where} was made for other images than {data.spec}: some labels differ")
        first = self.published.images(self.name, self.severity, data.ids[:1])
        if first.shape[1:] != data.images.shape[1:]:
            raise DataError(f"{where} has images {tuple(first.shape[1:])}, but {data.spec} has {data.shape}")

    def perturb(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, context: AttackContext
    ) -> torch.Tensor:
        if self.files is not None:
            published = self.published.images(self.name, self.severity, context.ids.cpu())
            if published.shape != images.shape:
                raise PluginError(
                    f"corruption: expected files with images {tuple(images.shape[1:])}, but got {tuple(published.shape[1:])}"
                )
            return published.to(images.device).float().div_(255)
        from freqrobust.attacks.corruptions.draws import Draws

        draws = Draws(context.ids, context.seed, f"corruption {self.name} {self.severity}")
        height, width = images.shape[-2:]
        found = self._function(height, width)(images, self._constants(height, width), draws).clamp_(0, 1)
        return found.mul_(255).add_(_TRUNCATION_MARGIN).floor_().div_(255) if self.eight_bit else found

    def _set(self, height: int, width: int) -> str:
        return constant_set(height, width) if self.constants == "auto" else self.constants

    def _constants(self, height: int, width: int) -> Constants:
        return TABLES[self._set(height, width)][self.name][self.severity - 1]

    def _folder(self, height: int, width: int) -> Any:
        from freqrobust.attacks.corruptions.textures import folder

        assert self.frost is not None
        return folder(self.frost, 0.2 if self._set(height, width) == "cifar" else 1.0)

    def _function(self, height: int, width: int) -> Callable[..., torch.Tensor]:
        from functools import partial

        from freqrobust.attacks.corruptions import blur, digital, noise, spatter, weather
        from freqrobust.attacks.corruptions.textures import Procedural

        if self.name == "frost":
            textures = Procedural() if self.frost is None else self._folder(height, width)
            return partial(weather.frost, textures=textures)
        modules = (noise, blur, weather, digital, spatter)
        found: Callable[..., torch.Tensor] = next(
            getattr(module, self.name) for module in modules if hasattr(module, self.name)
        )
        return found
