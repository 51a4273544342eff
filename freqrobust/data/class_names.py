"""The names of the classes of the published datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from freqrobust.data.dataset import ImageData


def with_names(data: ImageData, names: Iterable[object]) -> ImageData:
    """The data with the names of its classes; as it is where there are not as many names as classes.

    Of several names of a class, as in ImageNet, the first one is taken.
    """
    texts = tuple(str(name[0] if isinstance(name, tuple | list) and name else name) for name in names)
    return replace(data, class_names=texts) if len(texts) == data.classes else data


def published_names(data: ImageData, spec: str) -> ImageData:
    """Data of a published dataset with the names of its classes; folders of ImageNet are named by WordNet ids.

    Args:
        data: what was loaded.
        spec: the data spec.
    """
    head, _, argument = spec.partition(":")
    names = _PUBLISHED.get(f"{head}:{argument.partition(':')[0]}" if head == "robustbench" else head)
    if names is None:
        return data
    known = names()
    return with_names(data, [known[index] for index in data.class_subset] if data.class_subset else known)


def _digits() -> tuple[str, ...]:
    return tuple("0123456789")


def _cifar10() -> tuple[str, ...]:
    return ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _imagenet() -> tuple[str, ...]:
    """From what torchvision says of its weights; nothing is downloaded."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


_PUBLISHED: dict[str, Callable[[], tuple[str, ...]]] = {
    **dict.fromkeys(("digits", "mnist", "svhn"), _digits),
    **dict.fromkeys(("cifar10", "cifar10.1", "cifar10c", "robustbench:cifar10c"), _cifar10),
    **dict.fromkeys(
        ("imagenet", "imagenetc", "imagenetcbar", "imagenet3dcc", "imageneta", "imagenetr", "imagenetsketch"), _imagenet
    ),
    **dict.fromkeys(("imagenetv2", "robustbench:imagenet", "robustbench:imagenetc"), _imagenet),
    "robustbench:imagenet3dcc": _imagenet,
}
