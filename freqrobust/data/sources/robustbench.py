"""``robustbench:NAME``: the corrupted datasets that RobustBench evaluates on, from local folders in its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.text import near_miss
from freqrobust.data.corruption_files import load_arrays
from freqrobust.data.dataset import ImageData
from freqrobust.data.folder_data import from_folder
from freqrobust.data.image_folders import check_folder, check_image_folder
from freqrobust.data.robustbench_package import package
from freqrobust.data.source_table import DataRequest, DataSource
from freqrobust.plugins.corruption_names import SEVERITIES
from freqrobust.plugins.specs import spec_options

_IMAGENET_CLASSES = 1000
#: Datasets by name: the folder, in which the corrupted images are below ``CORRUPTION/SEVERITY``, and the classes.
_CORRUPTED = {
    "cifar10c": ("CIFAR-10-C", 10),
    "cifar100c": ("CIFAR-100-C", 100),
    "imagenetc": ("ImageNet-C", _IMAGENET_CLASSES),
    "imagenet3dcc": ("ImageNet-3DCC", _IMAGENET_CLASSES),
}
_NAMES = (*_CORRUPTED, "imagenet")


def load(request: DataRequest) -> ImageData:
    """``robustbench:cifar10c[:severity=5,corruptions=[fog,snow]]``, and the other names.

    The samples of all corruptions are interleaved, image by image: the first ``15 * n`` of ``cifar10c`` are the
    samples that RobustBench loads for ``n_examples=15 * n``, in another order.

    Raises:
        SpecError: the name of the dataset, a corruption or a parameter is unknown.
        DataError: files are missing or damaged.
    """
    spec = request.spec
    name, _, text = request.argument.partition(":")
    if name not in _NAMES:
        raise SpecError(f"robustbench has no data {name!r}{near_miss(name, _NAMES)} ({', '.join(_NAMES)})")
    options = spec_options(text, spec, ("severity", "corruptions") if name in _CORRUPTED else ())
    if name == "imagenet":
        return from_folder(_image_folder(request.root / "val"), request, _IMAGENET_CLASSES)
    severity = options.get("severity", "5")
    if severity not in map(str, SEVERITIES):
        raise SpecError(f"{spec!r}: severity should be 1 to {SEVERITIES[-1]}, but got {severity!r}")
    module = package("robustbench.data")
    known = module.CORRUPTIONS_3DCC if name == "imagenet3dcc" else module.CORRUPTIONS
    corruptions = [part.strip() for part in options.get("corruptions", ",".join(known)).strip("[]").split(",")]
    for corruption in corruptions:
        if corruption not in known:
            raise SpecError(
                f"{spec!r}: unknown corruption {corruption!r}{near_miss(corruption, known)} ({', '.join(known)})"
            )
    directory, classes = _CORRUPTED[name]
    folder = check_folder(request.root / directory, "give --data-dir")
    if classes != _IMAGENET_CLASSES:
        return load_arrays(folder, corruptions, int(severity), spec, classes, request.subset)
    if len(corruptions) != 1:
        raise SpecError(f"{spec!r}: name one corruption, for example robustbench:{name}:corruptions={known[0]}")
    images = _image_folder(folder / corruptions[0] / severity)
    return from_folder(images, request, classes, sized=True)


def _image_folder(path: Path) -> Any:
    """The 5000 ImageNet images that RobustBench evaluates on, ``path/CLASS/IMAGE``."""
    check_image_folder(check_folder(path, "give --data-dir"))
    try:
        return package("robustbench.loaders").CustomImageFolder(str(path))
    except KeyError as error:
        raise DataError(f"{path} has no class folder {error}") from error


SOURCES = (
    DataSource(
        "robustbench:NAME[:severity=S,corruptions=[C,...]]",
        f"the images that RobustBench evaluates on: {', '.join(_NAMES)}",
        load,
    ),
)
