"""``attack``: the images that one attack makes of some images, for use in Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from freqrobust.core.config import SaveConfig
from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.progress import Progress, as_progress
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.data.loading import as_data
from freqrobust.harness.examples import make_examples, undefended_target
from freqrobust.harness.inputs import Model, open_inputs
from freqrobust.harness.opening import check_fit, check_settings, prepared_model
from freqrobust.harness.outcome import NORMS
from freqrobust.numerics.norms import norms
from freqrobust.numerics.threat import Norm
from freqrobust.plugins.base import Attack
from freqrobust.plugins.context import Goal
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.selection import check_criterion, parse_criterion, parse_selections
from freqrobust.plugins.specs import PluginSpec


class Passes(NamedTuple):
    """Passes through the model, in images.

    Attributes:
        forwards: forward passes, those of the predictions included.
        backwards: backward passes.
    """

    forwards: int
    backwards: int


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What one attack made of some images; all tensors are on the device of the images that were given.

    Attributes:
        images: float32 ``(N, C, H, W)``; of an adversarial attack in [0, 1] and within its perturbation budget.
        is_adversarial: the attack has succeeded, by the criterion, bool ``(N,)``; also where the clean image was
            misclassified before.
        predictions: the predicted class of each of the images, int64 ``(N,)``; -1 where the logits are NaN.
        distances: the norm of each perturbation, by ``linf``, ``l2`` and ``l1``, float32 ``(N,)``, for pixels in [0, 1].
        norm: the norm in which the attack is bounded, or which it minimises; None where it has none.
        passes: the passes through the model that it took.
        spec: the attack with the parameters that were given.
    """

    images: torch.Tensor
    is_adversarial: torch.Tensor
    predictions: torch.Tensor
    distances: dict[Norm, torch.Tensor]
    norm: Norm | None
    passes: Passes
    spec: str

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"AttackResult({self.spec}: {int(self.is_adversarial.sum())} of {len(self)} images are adversarial)"


def attack(
    model: Model,
    images: Any,
    labels: Any,
    spec: str | Attack | PluginSpec[Attack],
    *,
    criterion: str | Criterion | None = None,
    goal: Goal = "maximize",
    seed: int = 0,
    batch_size: int | Literal["auto"] = "auto",
    device: str | torch.device = "auto",
    progress: Progress | bool | None = None,
) -> AttackResult:
    """Run one attack, frequency filter or corruption on images, and return the changed images.

    The examples are those of :func:`freqrobust.evaluate` on the same images: randomness is seeded by (seed, position of
    the image), so that neither the batch size nor the other images change them. The model is frozen in eval mode meanwhile,
    and restored afterwards. Gradients are enabled, also where the caller has disabled them.

    Example:
        >>> result = attack(model, images, labels, "pgd:eps=8/255,steps=20")  # doctest: +SKIP
        >>> result.images[result.is_adversarial]  # doctest: +SKIP

    Args:
        model: an ``nn.Module`` from images in [0, 1] to logits, or a model spec, whose normalisation is recognised as by
            :func:`freqrobust.load_model`; these images serve for comparing normalisations.
        images: tensor or array ``(N, C, H, W)``, float in [0, 1] or uint8; also ``(N, H, W)``, and uint8 ``(N, H, W, C)``.
        labels: the true classes, integers ``(N,)``; also with a targeted criterion.
        spec: an attack spec such as ``pgd:eps=8/255``, or an object.
        criterion: what counts as adversarial: a spec such as ``targeted:3``, or an object; by default misclassification.
        goal: ``maximize`` returns the example with the highest loss for every image. With ``decide``, as in
            :func:`freqrobust.evaluate`, an attack stops on an image as soon as it is adversarial, and leaves the images
            that are adversarial unchanged.
        seed: the seed of the attack.
        batch_size: images per batch, or ``auto``.
        device: where the model runs: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        progress: as in :func:`freqrobust.evaluate`.

    Raises:
        FreqRobustError: the model, the images, an option or the spec is wrong, or the attack failed.
    """
    config = SaveConfig(seed=seed, batch_size=batch_size, device=device)
    settings = check_settings(config)
    if goal not in ("maximize", "decide"):
        raise SpecError(f"goal should be 'maximize' or 'decide', but got {goal!r}")
    plugin_spec = _one_attack(spec)
    chosen = parse_criterion("misclassification" if criterion is None else criterion)
    check_criterion(chosen, [plugin_spec])
    data = _as_images(images, labels)
    home = images.device if isinstance(images, torch.Tensor) else torch.device("cpu")
    plugin = plugin_spec.plugin
    with running_user_code(f"{plugin_spec.spec} failed"):
        plugin.check_data(data)
    with as_progress(progress) as progress:
        (network,), _ = open_inputs([model], data, config, settings.device, progress=progress)
        with prepared_model(network, settings.device):
            fit = check_fit(network, data, settings.device)
            chosen.plugin.check_classes(fit.classes)
            target_model, batches = undefended_target(
                fit.network,
                data,
                settings.device,
                seed=config.seed,
                batch_size=settings.batch_size,
                attacked=plugin.kind == "adversarial",
                progress=progress,
                criterion=chosen.plugin,
            )
            progress.begin(plugin_spec.spec, len(data))
            with running_user_code(f"{plugin_spec.spec} failed"):
                examples = make_examples(plugin_spec, target_model, batches, config.seed, goal)
            progress.end(f"{plugin_spec.spec}: {int(examples.is_adversarial.sum())} of {len(data)} adversarial")
    clean, _, _ = data.batch(torch.arange(len(data)), torch.device("cpu"))
    threat, view = plugin.threat(), target_model.view
    return AttackResult(
        images=examples.images.to(home),
        is_adversarial=examples.is_adversarial.to(home),
        predictions=examples.predictions.to(home),
        distances={norm: norms(examples.images - clean, norm).to(home) for norm in NORMS},
        norm=threat.norm if threat is not None else plugin.minimizes(),
        passes=Passes(target_model.forwards + view.forwards, view.backwards),
        spec=plugin_spec.spec,
    )


def _one_attack(spec: Any) -> PluginSpec[Attack]:
    if spec is None or (isinstance(spec, list | tuple) and not spec):
        raise SpecError(f"spec should be an attack such as 'pgd:eps=8/255', or an Attack object, but got {spec!r}")
    plugin_specs = parse_selections(spec)
    if not plugin_specs:
        raise SpecError("'clean' changes no image: give an attack, such as pgd:eps=8/255")
    if len(plugin_specs) > 1:
        raise SpecError(f"attack runs one attack, but {spec!r} stands for {len(plugin_specs)}")
    return plugin_specs[0]


def _as_images(images: Any, labels: Any) -> ImageData:
    if not hasattr(images, "shape"):
        raise DataError(f"images should be a tensor or an array (N, C, H, W), but got {type(images).__name__}")
    return as_data((images, labels), "images")
