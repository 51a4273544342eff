"""Networks of torchvision, timm and transformers evaluated on files of many sizes, here and by their own library.

    python benchmarks/preprocessing.py --folder DIR [--shared ../shared] [--images 100]

The first test images of CIFAR-10 are enlarged to sizes from 70 to 260 pixels and written as PNG and JPEG files. Each
network has random weights and a last layer that is fitted to 200 training images by ridge regression; its weights are
written where its library looks for them, and nothing is downloaded. The logits of the two evaluations and their
predictions are compared. It takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from freqrobust import evaluate
from freqrobust.core.config import EvalConfig
from freqrobust.harness.inputs import open_inputs

ROOT = Path(__file__).resolve().parents[1]
TRAINING = 200
CLASSES = 10


@dataclass(frozen=True)
class Subject:
    """A network whose weights are in local files.

    Attributes:
        spec: names it for freqrobust.
        network: from normalised images to logits.
        pipeline: its library's own preprocessing, from a PIL image to a normalised tensor ``(C, H, W)``.
        save: writes the weights where ``spec`` finds them.
    """

    spec: str
    network: nn.Module
    pipeline: Callable[[Image.Image], torch.Tensor]
    save: Callable[[], object]

    def logits(self, images: list[Image.Image]) -> torch.Tensor:
        """Of the library's own evaluation, one image at a time."""
        with torch.no_grad():
            return torch.cat([outputs(self.network(self.pipeline(image)[None])) for image in images])


def outputs(result: Any) -> torch.Tensor:
    """The logits, of an object with the attribute too."""
    return result if isinstance(result, torch.Tensor) else result.logits


def enlarged(pixels: np.ndarray, index: int) -> Image.Image:
    """An image of 32 x 32 pixels in one of many sizes, from 70 to 260 on a side."""
    width, height = 70 + 37 * index % 191, 70 + 53 * index % 191
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def write_images(pixels: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """``folder/CLASS/IMAGE``, PNG and JPEG in turn."""
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        path = folder / f"class{label}" / f"{index:04}.{'png' if index % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        enlarged(image, index).save(path)


def read_images(folder: Path) -> tuple[list[Image.Image], torch.Tensor]:
    """The images in the order of their classes and names, and the labels."""
    paths = sorted(folder.rglob("*.*g"))
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return images, torch.tensor([int(path.parent.name.removeprefix("class")) for path in paths])


def fit_last(subject: Subject, last: nn.Linear, images: list[Image.Image], labels: np.ndarray) -> None:
    """Fit a last layer of 10 classes by ridge regression; further outputs stay out of reach."""
    features: list[torch.Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].detach()))
    subject.logits(images)
    handle.remove()
    x = torch.cat(features).double()
    mean = x.mean(dim=0)
    x = x - mean
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).double() - 1 / CLASSES
    gram = x.T @ x
    weight = torch.linalg.solve(gram + 1e-3 * gram.trace() * torch.eye(len(gram)), x.T @ targets).T
    with torch.no_grad():
        last.weight.zero_()
        last.bias.fill_(-10.0)
        last.weight[:CLASSES] = weight.float()
        last.bias[:CLASSES] = (-(weight @ mean)).float()


def timm_subject(name: str, folder: Path, side: int, **options: Any) -> tuple[Subject, nn.Linear]:
    """A network of timm at a small size, in a folder as its hub has."""
    import safetensors.torch
    import timm

    network = timm.create_model(name, num_classes=CLASSES, **options).eval()
    cfg = {"input_size": [3, side, side], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
    cfg |= {"mean": [0.5, 0.45, 0.4], "std": [0.25, 0.2, 0.3], "num_classes": CLASSES}
    for key in ("first_conv", "classifier"):
        cfg[key] = network.pretrained_cfg[key]
    resolved = timm.data.resolve_data_config(pretrained_cfg=cfg)
    transform = timm.data.create_transform(**resolved, is_training=False)

    def save() -> None:
        folder.mkdir(parents=True)
        safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
        config = {"architecture": name, "num_classes": CLASSES, "pretrained_cfg": cfg, "model_args": options}
        (folder / "config.json").write_text(json.dumps(config))

    return Subject(f"timm:{folder}", network, transform, save), network.get_classifier()


def transformers_subject(kind: str, folder: Path, side: int) -> tuple[Subject, nn.Linear]:
    """A small ViT or ResNet of transformers with its image processor, in a folder as ``save_pretrained`` writes it."""
    import transformers as tf

    tf.utils.logging.disable_progress_bar()
    if kind == "vit":
        config = tf.ViTConfig(
            hidden_size=96, num_hidden_layers=3, num_attention_heads=3, intermediate_size=192, image_size=side,
            patch_size=8, num_labels=CLASSES,
        )  # fmt: skip
        network = tf.ViTForImageClassification(config).eval()
        processor, last = tf.ViTImageProcessor(size={"height": side, "width": side}), network.classifier
    else:
        config = tf.ResNetConfig(
            embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1], layer_type="basic",
            num_labels=CLASSES,
        )  # fmt: skip
        network = tf.ResNetForImageClassification(config).eval()
        processor, last = tf.ConvNextImageProcessor(size={"shortest_edge": side}), network.classifier[1]

    def pipeline(image: Image.Image) -> torch.Tensor:
        return processor(images=image, return_tensors="pt")["pixel_values"][0]

    def save() -> None:
        network.save_pretrained(folder)
        processor.save_pretrained(folder)

    return Subject(f"hf:{folder}", network, pipeline, save), last


def torchvision_subject(name: str) -> tuple[Subject, nn.Linear]:
    """A network of torchvision with the preprocessing of its published weights, in the cache of ``torch.hub``."""
    from torchvision.models import get_model, get_model_weights

    network = get_model(name, weights=None).eval()
    weights = get_model_weights(name).DEFAULT

    def save() -> None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), path)

    last = network.fc if hasattr(network, "fc") else network.classifier[-1]
    return Subject(f"torchvision:{name}", network, weights.transforms(), save), last


@dataclass(frozen=True)
class Agreement:
    """Two evaluations of the same network.

    Attributes:
        preprocessing: what was applied here.
        correct: samples that are classified correctly here; ``theirs``: by the library.
        same: samples with the same prediction.
        difference: the largest difference of two logits, over the largest logit.
    """

    spec: str
    preprocessing: str
    n: int
    correct: int
    theirs: int
    same: int
    difference: float


def compare(subject: Subject, folder: Path) -> Agreement:
    """Evaluate the files of a folder twice."""
    images, labels = read_images(folder)
    expected = subject.logits(images)
    spec = f"folder:{folder}"
    options = {"attacks": ["clean"], "diagnose": None, "device": "cpu"}
    clean = next(cell for cell in evaluate(subject.spec, spec, **options).cells if cell.attack == "clean")
    (network,), data = open_inputs([subject.spec], spec, EvalConfig(), torch.device("cpu"))
    assert data is not None
    with torch.no_grad():
        logits = torch.cat([network(batch) for batch in data.image_batches(25, torch.device("cpu"))])
    return Agreement(
        subject.spec,
        str(data.preprocessing),
        len(data),
        clean.correct,
        int((expected.argmax(dim=1) == labels).sum()),
        int((expected.argmax(dim=1) == logits.argmax(dim=1)).sum()),
        float((logits - expected).abs().max() / expected[:, :CLASSES].abs().max()),
    )


def subjects(folder: Path, side: int = 64) -> list[Callable[[], tuple[Subject, nn.Linear]]]:
    """What makes each of the networks."""
    return [
        lambda: torchvision_subject("mobilenet_v3_small"),
        lambda: timm_subject("resnet10t", folder / "timm-resnet", side),
        lambda: timm_subject("vit_tiny_patch16_224", folder / "timm-vit", side, img_size=side),
        lambda: transformers_subject("vit", folder / "hf-vit", side),
        lambda: transformers_subject("resnet", folder / "hf-resnet", side),
    ]


def main() -> None:
    """Print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("FREQROBUST_SHARED", ROOT.parent / "shared"))
    parser.add_argument("--shared", type=Path, default=shared, help="folder with data/")
    parser.add_argument("--folder", type=Path, required=True, help="new folder of the images and weights")
    parser.add_argument("--images", type=int, default=100, help="first images of the test set")
    options = parser.parse_args()
    torch.hub.set_dir(str(options.folder / "torch"))
    test, train = (np.load(options.shared / "data/cifar10" / name) for name in ("test_500.npz", "train_4000.npz"))
    write_images(test["images"][: options.images], test["labels"][: options.images], options.folder / "images")
    training = [enlarged(image, index) for index, image in enumerate(train["images"][:TRAINING])]
    print(f"{'network':30} {'n':>4} {'here':>5} {'library':>8} {'same top-1':>11} {'logits differ':>14}  preprocessing")
    for make in subjects(options.folder):
        torch.manual_seed(0)
        subject, last = make()
        fit_last(subject, last, training, train["labels"][:TRAINING])
        subject.save()
        found = compare(subject, options.folder / "images")
        name = found.spec.replace(f"{options.folder}/", "")
        print(
            f"{name:30} {found.n:4} {found.correct:5} {found.theirs:8} {found.same:11} {found.difference:14.1e}"
            f"  {found.preprocessing}",
            flush=True,
        )
        if (found.correct, found.same) != (found.theirs, found.n) or not math.isclose(
            found.difference, 0, abs_tol=1e-4
        ):
            sys.exit(f"{found.spec}: the two evaluations differ")


if __name__ == "__main__":
    main()
