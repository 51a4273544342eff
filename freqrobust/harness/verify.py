"""``freqrobust verify``: saved adversarial examples, evaluated again, also after rounding to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from freqrobust.core.config import VerifyConfig
from freqrobust.core.errors import DataError, SpecError
from freqrobust.core.options import FilePath, takes
from freqrobust.core.progress import Progress, as_progress

if TYPE_CHECKING:
    import torch
    from torch import nn
    from typing_extensions import Unpack

    from freqrobust.core.option_types import VerifyOptions
    from freqrobust.core.progress import Progress
    from freqrobust.data.adversarial_sets import SavedSet
    from freqrobust.data.dataset import ImageData
    from freqrobust.harness.inputs import Model
    from freqrobust.harness.opening import Settings
    from freqrobust.plugins.specs import DefenseChain

#: Levels of a pixel in a file of 8 bits, but one.
_LEVELS = 255


@dataclass(frozen=True)
class Verified:
    """What one saved set does to a model.

    Attributes:
        same_model: whether it is the model that the set was made for.
        misclassified: examples that the model gets wrong now; ``misclassified_when_saved``: those it was saved with.
        same_predictions: examples predicted as when saved.
        survive_rounding: of those misclassified now, how many still are with pixels rounded to 8 bits.
        robust: samples right on the clean image and on the example; None without the clean images.
        budget: ``within``, ``exceeded``, ``none`` (the attack has none) or ``not checked`` (no clean images).
        largest: the largest measured norm of a perturbation, in the norm of the budget.
    """

    file: str
    attack: str
    defense: str
    threat: dict[str, Any] | None
    n: int
    same_model: bool
    misclassified: int
    misclassified_when_saved: int
    same_predictions: int
    survive_rounding: int
    robust: int | None
    budget: Literal["within", "exceeded", "none", "not checked"]
    largest: float | None


@takes(VerifyConfig, "model", "data")
def verify(
    where: FilePath,
    model: Model,
    data: Any = None,
    config: VerifyConfig | None = None,
    *,
    progress: Progress | bool | None = None,
    **options: Unpack[VerifyOptions],
) -> list[Verified]:
    """Evaluate saved adversarial examples again.

    Args:
        where: a directory written by ``save_adversarial``, or one of its files.
        model: images in [0, 1] to logits, or a model spec.
        data: the clean images, to check the perturbation budgets; it may contain more samples than were attacked.
        config: the options; ``options`` replace some of them.
        progress: as in :func:`freqrobust.evaluate`.
        options: fields of :class:`freqrobust.core.config.VerifyConfig`.

    Raises:
        FreqRobustError: a set is damaged or made for other data, or the model does not fit its images.
    """
    from freqrobust.core.files import user_path
    from freqrobust.data.adversarial_sets import read_all
    from freqrobust.harness.inputs import open_inputs, open_train_data
    from freqrobust.harness.opening import check_settings

    config = VerifyConfig.of(config, options)
    settings = check_settings(config)
    cache = user_path(config.cache_dir, "cache_dir") if config.cache_dir is not None else None
    with as_progress(progress) as progress:
        (network,), clean = open_inputs([model], data, config, settings.device, cache_dir=cache, progress=progress)
        training = open_train_data(config, clean)
        sets = read_all(user_path(where, "the folder of saved examples"))
        counterparts = [_counterpart(one, clean) if clean is not None else None for one in sets]
        chains = [_chain(one, config.defense) for one in sets]
        return [
            _verified(one, network, chain, images, training, settings, cache, progress)
            for one, chain, images in zip(sets, chains, counterparts, strict=True)
        ]


def _counterpart(saved: SavedSet, clean: ImageData) -> ImageData:
    """The clean images of a saved set, in its order.

    Raises:
        DataError: the set was made for other data.
    """
    import torch

    where = {identifier: position for position, identifier in enumerate(clean.ids.tolist())}
    index = [where.get(identifier, -1) for identifier in saved.ids.tolist()]
    record = saved.meta.data
    other = f"{saved.path} was made for other data: {record.spec} [{record.split}], not {clean.spec} with {len(clean)} samples"
    if min(index) < 0:
        raise DataError(f"{other} (sample {saved.ids[index.index(-1)]} is not there)")
    found = clean.take(torch.tensor(index))
    if found.sha256 != saved.meta.data.sha256:
        raise DataError(f"{other} (images or labels differ)")
    return found


def _chain(saved: SavedSet, defense: str) -> DefenseChain:
    from freqrobust.core.errors import FreqRobustError
    from freqrobust.plugins.selection import parse_defenses

    if defense != "saved":
        chains = parse_defenses([defense])
        if len(chains) != 1:
            raise SpecError(f"verify takes one defense, but {defense!r} is a sweep of {len(chains)}")
        return chains[0]
    try:
        return parse_defenses([saved.meta.defense_source])[0]
    except FreqRobustError as error:
        raise SpecError(
            f"{saved.path} was made for the defense {saved.meta.defense}: {error}; give --defense undefended, or its spec"
        ) from error


def _verified(
    saved: SavedSet,
    model: nn.Module,
    chain: DefenseChain,
    clean: ImageData | None,
    training: ImageData | None,
    settings: Settings,
    cache_dir: Path | None,
    progress: Progress,
) -> Verified:
    import torch

    from freqrobust.harness.opening import open_run
    from freqrobust.harness.run import DefenseRun
    from freqrobust.models.fingerprint import record
    from freqrobust.numerics.norms import norms
    from freqrobust.numerics.threat import allowance

    meta, data, n = saved.meta, saved.data, len(saved.ids)
    threat, distances = meta.threat, torch.zeros(n)
    for part in chain.defenses:
        if part.needs_train_data and training is None:
            raise SpecError(f"the defense {chain.spec} needs training data: give --train-data, or --defense undefended")
    classes = torch.zeros(n, dtype=torch.int64)
    wrong, rounded_wrong, clean_correct = torch.zeros((3, n), dtype=torch.bool)
    label = f"verifying {chain.spec} / {meta.attack}"
    with open_run(
        model, data, settings, training=training, seed=meta.seed, cache_dir=cache_dir, progress=progress
    ) as run:
        one = DefenseRun(run, chain)
        target_model = one.target_model()

        def work(chunk: torch.Tensor) -> None:
            images, labels, ids = data.batch(chunk, run.device)
            prediction = target_model.predict(images, ids)
            classes[chunk] = prediction.classes.cpu()
            wrong[chunk] = prediction.is_adversarial(labels).cpu()
            rounded = (images * _LEVELS).round() / _LEVELS
            rounded_wrong[chunk] = target_model.predict(rounded, ids).is_adversarial(labels).cpu()
            if clean is not None:
                clean.prefetch(torch.arange(int(chunk[0]), min(n, int(chunk[-1]) + 1 + len(chunk))))
                originals, _, _ = clean.batch(chunk, run.device)
                clean_correct[chunk] = target_model.predict(originals, ids).is_correct(labels).cpu()
                if threat is not None:
                    distances[chunk] = norms((images - originals).cpu(), threat.norm)

        progress.begin(label, n)
        one.batches.each(torch.arange(n), work)
        progress.end(f"{label}: {int(wrong.sum())} of {n} misclassified")
        now = record(run.network, run.model_print)
    same_model = (now.sha256, now.normalize.mean, now.normalize.std) == (
        meta.model.sha256,
        meta.model.normalize.mean,
        meta.model.normalize.std,
    ) and chain.spec == meta.defense
    largest = float(distances.max()) if clean is not None and threat is not None else None
    return Verified(
        file=saved.path.name,
        attack=meta.attack,
        defense=chain.spec,
        threat=threat.model_dump() if threat is not None else None,
        n=n,
        same_model=same_model,
        misclassified=int(wrong.sum()),
        misclassified_when_saved=int((saved.predictions != saved.labels).sum()),
        same_predictions=int((classes == saved.predictions).sum()),
        survive_rounding=int((wrong & rounded_wrong).sum()),
        robust=int((~wrong & clean_correct).sum()) if clean is not None else None,
        budget=(
            "none"
            if threat is None
            else "not checked"
            if largest is None
            else "within"
            if largest <= allowance(threat.eps)
            else "exceeded"
        ),
        largest=largest,
    )
