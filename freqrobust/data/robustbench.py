"""The corrupted data sets that RobustBench evaluates on, read from local folders in its layout."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.files import cache_root
from freqrobust.core.text import near_miss
from freqrobust.data.corruption_files import load_arrays
from freqrobust.data.dataset import Choice, ImageData
from freqrobust.data.decoding import from_samples
from freqrobust.data.image_folders import check_image_folder
from freqrobust.data.robustbench_package import PREFIX, options, package

#: Folders of corrupted data as RobustBench lays them out, and the number of classes.
CORRUPTED = {
    "cifar10c": ("CIFAR-10-C", 10),
    "cifar100c": ("CIFAR-100-C", 100),
    "imagenetc": ("ImageNet-C", 1000),
    "imagenet3dcc": ("ImageNet-3DCC", 1000),
}
DATASETS = [*CORRUPTED, "imagenet"]
SEVERITIES = 5


def load_corrupted(spec: str, data_dir: str | os.PathLike[str] | None, choice: Choice) -> ImageData:
    """``robustbench:cifar10c[:severity=5,corruptions=[fog,snow]]`` and friends, from a local folder.

    The samples of all corruptions are interleaved, image by image: the first ``15 * n`` of ``cifar10c`` are the
    samples that RobustBench takes for ``n_examples=15 * n``, in another order.

    Raises:
        SpecError: there is no such data set or corruption.
        DataError: the files are not there, or not what they should be.
    """
    name, _, text = spec.removeprefix(PREFIX).partition(":")
    if name not in DATASETS:
        raise SpecError(f"robustbench has no data {name!r}{near_miss(name, DATASETS)} ({', '.join(DATASETS)})")
    root = Path(data_dir) if data_dir is not None else cache_root() / "data"
    if name == "imagenet":
        options(text, spec, ())
        return from_samples(_image_folder(root / "val", spec), spec, 1000, choice)
    given = options(text, spec, ("severity", "corruptions"))
    severity = given.get("severity", "5")
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise SpecError(f"{spec!r}: severity should be 1 to {SEVERITIES}, but got {severity!r}")
    module = package("robustbench.data")
    known = module.CORRUPTIONS_3DCC if name == "imagenet3dcc" else module.CORRUPTIONS
    wanted = [part.strip() for part in given.get("corruptions", ",".join(known)).strip("[]").split(",")]
    for one in wanted:
        if one not in known:
            raise SpecError(f"{spec!r}: unknown corruption {one!r}{near_miss(one, known)} ({', '.join(known)})")
    folder, classes = root / CORRUPTED[name][0], CORRUPTED[name][1]
    if not folder.is_dir():
        raise DataError(f"{spec}: {folder} is not a folder; give --data-dir")
    if name.startswith("imagenet"):
        if len(wanted) != 1:
            raise SpecError(f"{spec!r}: name one corruption, for example {PREFIX}{name}:corruptions={known[0]}")
        return from_samples(_image_folder(folder / wanted[0] / severity, spec), spec, classes, choice)
    return load_arrays(folder, wanted, int(severity), spec, classes, choice)


class _Pairs:
    """RobustBench's image folder as (image, label) pairs; the paths are left out."""

    def __init__(self, folder: Any) -> None:
        self.folder, self.samples, self.targets = folder, folder.samples, folder.targets

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, label, _ = self.folder[index]
        return image, label


def _image_folder(path: Path, spec: str) -> _Pairs:
    """The 5000 ImageNet images that RobustBench evaluates on, below ``path/CLASS/``."""
    if not path.is_dir():
        raise DataError(f"{spec}: {path} is not a folder; give --data-dir")
    check_image_folder(path)
    try:
        return _Pairs(package("robustbench.loaders").CustomImageFolder(str(path)))
    except KeyError as error:
        raise DataError(f"{spec}: {path} lacks the class folder {error}") from error
