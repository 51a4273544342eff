"""Small networks of timm and transformers, in folders and where ``huggingface_hub`` keeps what it downloaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

REVISION = "0123456789abcdef0123456789abcdef01234567"


def place_in_cache(cache: Path, repository: str, folder: Path) -> None:
    """A copy of a folder's files as a repository in the hub's cache: blobs by content, a link for each revision."""
    place = cache / f"models--{repository.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{REVISION}"):
        (place / part).mkdir(parents=True)
    (place / "refs" / "main").write_text(REVISION)
    for file in folder.iterdir():
        blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (place / "snapshots" / REVISION / file.name).symlink_to(Path("..", "..", "blobs", blob.name))


def timm_folder(folder: Path, name: str = "test_efficientnet", weights: str = "model.safetensors") -> nn.Module:
    """Random weights and the configuration of timm, with a size and names of classes of its own."""
    import timm

    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name, num_classes=3).eval()
    cfg: dict[str, Any] = {
        "input_size": [3, 48, 48],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.25],
        "num_classes": 3,
        "first_conv": network.pretrained_cfg["first_conv"],  # type: ignore[index]
        "classifier": network.pretrained_cfg["classifier"],  # type: ignore[index]
    }
    config = {"architecture": name, "num_classes": 3, "label_names": ["cat", "dog", "owl"], "pretrained_cfg": cfg}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights.endswith(".safetensors"):
        safetensors.torch.save_file(network.state_dict(), folder / weights)
    else:
        torch.save(network.state_dict(), folder / weights)
    network.pretrained_cfg = cfg  # type: ignore[assignment]
    return network


def transformers_folder(folder: Path, **processor: Any) -> tuple[nn.Module, Any]:
    """A tiny ViT with random weights and its image processor, as ``save_pretrained`` writes them."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "owl"},
        label2id={"cat": 0, "dog": 1, "owl": 2},
    )
    network: nn.Module = transformers.ViTForImageClassification(config).eval()
    images = transformers.ViTImageProcessor(**{"size": {"height": 32, "width": 32}, **processor})
    network.save_pretrained(folder)  # type: ignore[operator]
    images.save_pretrained(folder)
    return network, images
