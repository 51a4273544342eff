"""``cifar10c:DIR,...``, ``cifar100c:DIR,...`` and ``imagenetc:DIR,...``: one published corruption file as a dataset."""

from __future__ import annotations

from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.files import user_path
from freqrobust.core.text import near_miss
from freqrobust.data.corruption_files import Folders, load_arrays
from freqrobust.data.dataset import ImageData
from freqrobust.data.folder_data import from_folder
from freqrobust.data.image_folders import check_folder, image_folder
from freqrobust.data.source_table import DataRequest, DataSource
from freqrobust.plugins.corruption_names import COMMON, EXTRA, SEVERITIES
from freqrobust.plugins.specs import list_items, spec_options

#: The published test sets and their number of classes, by name; the last one consists of folders of images.
_CLASSES = {"cifar10c": 10, "cifar100c": 100, "imagenetc": 1000}
_TITLES = {"cifar10c": "CIFAR-10-C", "cifar100c": "CIFAR-100-C", "imagenetc": "ImageNet-C"}
_PUBLISHED = (*COMMON, *EXTRA)


def load(request: DataRequest) -> ImageData:
    """One corruption at one severity, or several corruptions of CIFAR-C, interleaved image by image.

    Raises:
        SpecError: a corruption, a severity or a parameter is unknown.
        DataError: files are missing or damaged.
    """
    spec, name = request.spec, request.name
    example = f"{name}:DIR,name=fog,severity=3"
    directory, _, text = request.argument.partition(",")
    folder = user_path(directory, name, DataError)
    options = spec_options(text, spec, ("name", "severity"))
    severity = options.get("severity", "")
    if "name" not in options or severity not in map(str, SEVERITIES):
        raise SpecError(f"{spec!r}: name a corruption and a severity of 1 to {SEVERITIES[-1]}: {example}")
    check_folder(folder, f"expected {example}")
    corruptions = list_items(options["name"]) or [options["name"]]
    for corruption in corruptions:
        files = (folder / f"{corruption}.npy", folder / corruption)
        if corruption not in _PUBLISHED and not any(path.exists() for path in files):
            raise SpecError(
                f"{spec!r}: unknown corruption {corruption!r}{near_miss(corruption, _PUBLISHED)} "
                f"({', '.join(_PUBLISHED)})"
            )
    classes = _CLASSES[name]
    if name != "imagenetc":
        return load_arrays(folder, corruptions, int(severity), spec, classes, request.subset)
    if len(corruptions) != 1:
        raise SpecError(f"{spec!r}: name one corruption; to measure several, give the attack corruption:files=DIR")
    dataset = image_folder(Folders(folder).path(corruptions[0], int(severity)))
    if len(dataset.classes) != classes:
        raise DataError(f"{spec}: {len(dataset.classes)} class folders, but ImageNet-C has {classes}")
    return from_folder(dataset, request, classes, sized=True)


SOURCES = tuple(
    DataSource(f"{name}:DIR,name=NAME,severity=S", f"published {_TITLES[name]} files", load) for name in _CLASSES
)
