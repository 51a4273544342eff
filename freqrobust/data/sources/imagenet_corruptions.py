"""``imagenetcbar:DIR,...`` and ``imagenet3dcc:DIR,...``: one corruption of ImageNet-C-bar or 3DCC as a dataset.

E. Mintun, A. Kirillov and S. Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption
Robustness", NeurIPS 2021; O. F. Kar, T. Yeo, A. Atanov and A. Zamir, "3D Common Corruptions and Data Augmentation",
CVPR 2022. The images are in ``DIR/NAME/SEVERITY/CLASS/IMAGE``, with all 1000 classes.
"""

from __future__ import annotations

from pathlib import Path

from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.files import user_path
from freqrobust.core.text import near_miss
from freqrobust.data.dataset import ImageData
from freqrobust.data.folder_data import from_folder
from freqrobust.data.image_folders import check_folder, image_folder
from freqrobust.data.source_table import DataRequest, DataSource
from freqrobust.plugins.corruption_names import SEVERITIES
from freqrobust.plugins.specs import spec_options

_TITLES = {"imagenetcbar": "ImageNet-C-bar", "imagenet3dcc": "3D Common Corruptions of ImageNet"}
_EXAMPLES = {"imagenetcbar": "sparkles", "imagenet3dcc": "fog_3d"}
_CLASSES = 1000


def load(request: DataRequest) -> ImageData:
    """One corruption at one severity.

    Raises:
        SpecError: the corruption or the severity is missing, or is not in the folder.
        DataError: the folder has another structure.
    """
    spec = request.spec
    example = f"{request.name}:DIR,name={_EXAMPLES[request.name]},severity=3"
    directory, _, text = request.argument.partition(",")
    options = spec_options(text, spec, ("name", "severity"))
    severity, name = options.get("severity", ""), options.get("name", "")
    if not name or severity not in map(str, SEVERITIES):
        raise SpecError(f"{spec!r}: name a corruption and a severity of 1 to {SEVERITIES[-1]}: {example}")
    folder = check_folder(user_path(directory, request.name, DataError), f"expected {example}")
    names = _folders(folder)
    if name not in names:
        raise SpecError(f"{spec!r}: {folder} has no folder {name!r}{near_miss(name, names)} ({_shown(names)})")
    dataset = image_folder(_severity(folder / name, int(severity)))
    if len(dataset.classes) != _CLASSES:
        raise DataError(f"{spec}: {len(dataset.classes)} class folders, but {_TITLES[request.name]} has {_CLASSES}")
    return from_folder(dataset, request, _CLASSES, sized=True)


def _severity(folder: Path, severity: int) -> Path:
    """The folder of a severity: of five folders that are named by numbers the one in that place, else the one so named.

    ImageNet-C-bar names its five severities by the parameter of the corruption, such as ``2.35``, or 3, 5, 8, 9 and 10:
    there, the folder ``3`` is that of severity 1.
    """
    names = _folders(folder)
    numbers = {float(name): name for name in names if name.replace(".", "", 1).isdecimal()}
    if len(numbers) == len(SEVERITIES):
        return folder / numbers[sorted(numbers)[severity - 1]]
    if str(severity) not in names:
        raise DataError(
            f"{folder} has no severity {severity}; expected {folder / str(severity)}, found {_shown(names)}"
        )
    return folder / str(severity)


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def _shown(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "no folders"


SOURCES = tuple(
    DataSource(f"{name}:DIR,name=NAME,severity=S", f"{title}, DIR/NAME/SEVERITY/CLASS/IMAGE", load)
    for name, title in _TITLES.items()
)
