"""What is written is what is read; what is damaged is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from freqrobust import Attack
from freqrobust.core.errors import DataError, JournalError, SpecError
from freqrobust.data.adversarial_sets import read, read_all
from freqrobust.harness.save_adversarial import save_adversarial
from freqrobust.numerics.threat import allowance


def test_every_sample_is_there_inside_of_its_budget(folder, undefended, model, digits) -> None:
    saved = read(undefended)
    assert torch.equal(saved.ids, digits.ids)
    assert torch.equal(saved.labels, digits.labels)
    clean, _, _ = digits.batch(torch.arange(len(digits)), torch.device("cpu"))
    farthest = (saved.images - clean).abs().amax(dim=(1, 2, 3))
    assert farthest.max() <= allowance(0.1)
    assert farthest.min() > 0.09  # maximised, also where the clean image is wrong already
    with torch.no_grad():
        assert torch.equal(model(saved.images).argmax(dim=1), saved.predictions)
    meta = saved.meta
    assert (meta.attack, meta.defense, meta.seed) == ("pgd:eps=0.1,steps=5", "undefended", 0)
    assert meta.threat is not None
    assert (meta.threat.norm, meta.threat.eps) == ("linf", 0.1)
    assert (meta.data.sha256, meta.attack_params["steps"]) == (digits.sha256, 5)


def test_writing_again_gives_the_same_file(undefended, tmp_path) -> None:
    saved = read(undefended)
    again = read(saved.write(tmp_path))
    assert again.path.name == undefended.name
    assert again.meta == saved.meta
    assert torch.equal(again.images, saved.images)


def test_sets_of_older_versions_are_read(undefended, tmp_path) -> None:
    """Which called the undefended model none."""
    with np.load(undefended) as archive:
        content = {name: archive[name] for name in archive.files}
    meta = {**json.loads(str(content["meta"])), "defense": "none", "defense_source": "none"}
    np.savez(tmp_path / "old.npz", **{**content, "meta": np.array(json.dumps(meta))})
    old = read(tmp_path / "old.npz")
    assert old.meta.defense == "undefended"
    assert torch.equal(old.images, read(undefended).images)


def test_names_are_safe_and_differ(model, digits, tmp_path) -> None:
    attacks = ["fgsm:eps=1/255", "fgsm:eps=[2/255,4/255]", "fgsm:norm=l2,eps=0.5"]
    saving = save_adversarial(model, digits.first(4), attacks=attacks, directory=tmp_path / "a" / "b", device="cpu")
    assert len({path.name for path in saving.paths}) == 4
    assert all(set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.=") for path in saving.paths)
    assert len(read_all(tmp_path / "a" / "b")) == 4


class Broken(Attack):
    """Leaves its budget."""

    eps: float = 0.1
    norm: str = "linf"

    def perturb(self, model, images, labels, context):
        return 1 - images


def test_an_attack_that_fails_leaves_the_others(model, digits, tmp_path) -> None:
    saving = save_adversarial(model, digits, attacks=[Broken(), "fgsm:eps=0.1"], directory=tmp_path, device="cpu")
    assert [path.name[:16] for path in saving.paths] == ["undefended__fgsm"]
    assert len(saving.failed) == 1
    assert "exceeds its perturbation budget" in saving.failed[0]
    with pytest.raises(SpecError, match="none of the attacks is adversarial"):
        save_adversarial(model, digits, attacks=["lfc:radius=2"], directory=tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error_at_once(model, digits, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="file is not a folder"):
        save_adversarial(model, digits, attacks=["fgsm:eps=0.1"], directory=tmp_path / "file")


def altered(path: Path, target: Path, **changes: object) -> Path:
    arrays = {**np.load(path), **changes}
    np.savez(target, **{name: array for name, array in arrays.items() if array is not None})
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": None, "meta": None}, "it lacks ids, meta"),
        ({"meta": np.array("{}")}, r"meta: freqrobust_version: Field required"),
        ({"meta": np.array("no JSON")}, "meta: : Invalid JSON"),
        ({"images": np.zeros((60, 8, 8), dtype=np.float32)}, r"expected float32 images \(N, C, H, W\)"),
        ({"images": np.zeros((60, 1, 8, 8))}, "but got float64"),
        ({"images": np.full((60, 1, 8, 8), np.nan, dtype=np.float32)}, r"not in \[0, 1\]"),
        ({"images": np.full((60, 1, 8, 8), 2, dtype=np.float32)}, r"not in \[0, 1\]"),
        ({"labels": np.zeros(59, dtype=np.int64)}, r"expected 60 integer labels, but got int64 \(59,\)"),
        ({"ids": np.zeros(60, dtype=np.int64)}, "ids are duplicated"),
        ({"predictions": np.zeros(60)}, "expected 60 integer predictions"),
        ({"labels": np.full(60, -1)}, "labels are negative"),
        ({"ids": np.array([None] * 60)}, "cannot be read"),
    ],
)
def test_other_content(undefended, tmp_path, changes, message) -> None:
    with pytest.raises(DataError, match=message):
        read(altered(undefended, tmp_path / "other.npz", **changes))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files(undefended, tmp_path, share) -> None:
    content = undefended.read_bytes()
    path = tmp_path / "short.npz"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"short\.npz cannot be read"):
        read(path)


def test_flipped_bits_are_noticed(undefended, tmp_path) -> None:
    content = bytearray(undefended.read_bytes())
    content[3000] ^= 0xFF
    path = tmp_path / "flipped.npz"
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="cannot be read"):
        read(path)


def test_nothing_is_there(tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist; expected a folder written by --save-adversarial"):
        read_all(tmp_path / "nowhere")
    with pytest.raises(DataError, match="contains no saved adversarial examples"):
        read_all(tmp_path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="contains a single array"):
        read_all(tmp_path / "one.npy")


def test_meta_is_json(undefended) -> None:
    meta = json.loads(str(np.load(undefended)["meta"][()]))
    assert meta["schema_version"] == 1
