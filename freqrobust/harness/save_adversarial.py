"""Saved adversarial examples: one ``.npz`` a cell, made for every sample with ``goal="maximize"``.

The arrays are ``images`` (float32, ``(N, C, H, W)`` in [0, 1]), ``ids``, ``labels`` and ``predictions`` (int64,
``(N,)``), and ``meta``, the JSON of :class:`Meta`: what the examples were made with, for which model and data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freqrobust.core.config import SaveConfig
from freqrobust.core.errors import FreqRobustError, ImageFileError, SpecError
from freqrobust.core.files import check_writable, user_path
from freqrobust.core.options import takes
from freqrobust.core.progress import Progress, as_progress
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.core.version import __version__
from freqrobust.data.adversarial_sets import Meta, SavedSet
from freqrobust.harness.examples import make_examples
from freqrobust.harness.inputs import Model, needed, open_inputs, open_train_data
from freqrobust.harness.opening import check_settings, open_run
from freqrobust.harness.run import DefenseRun
from freqrobust.models.fingerprint import record
from freqrobust.plugins.base import Attack
from freqrobust.plugins.selection import check_stochastic, parse_chains, parse_selections, source_spec
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.records import DataRecord, ThreatRecord

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from freqrobust.core.option_types import SaveOptions


@dataclass(frozen=True)
class Saving:
    """What came of saving: files, and cells that failed with their reasons."""

    paths: list[Path]
    failed: list[str]


@takes(SaveConfig, "model", "data")
def save_adversarial(
    model: Model,
    data: Any,
    directory: str | os.PathLike[str],
    config: SaveConfig | None = None,
    *,
    progress: Progress | bool | None = None,
    **options: Unpack[SaveOptions],
) -> Saving:
    """Make and save adversarial examples of every sample, for each defense and each adversarial attack.

    Args:
        model: as in :func:`freqrobust.evaluate`.
        data: as in :func:`freqrobust.evaluate`.
        directory: it is made if it does not exist, and the file of the same cell is replaced.
        config: the options.
        progress: as in :func:`freqrobust.evaluate`.
        options: fields of :class:`freqrobust.core.config.SaveConfig`.

    Raises:
        FreqRobustError: the model, the data or a spec is wrong, or the directory cannot be written.
    """
    config = SaveConfig.of(config, options)
    settings, folder = check_settings(config), user_path(directory, "directory")
    chosen = adversarial(parse_selections(config.attacks))
    chains = parse_chains(config.defenses, config.undefended, config.train_data is not None)
    check_stochastic(chains, chosen)
    cache = user_path(config.cache_dir, "cache_dir") if config.cache_dir is not None else None
    check_writable(folder / "examples.npz")
    saving = Saving([], [])
    with ExitStack() as stack:
        progress = stack.enter_context(as_progress(progress))
        (network,), images = open_inputs([model], data, config, settings.device, cache_dir=cache, progress=progress)
        images = needed(images)
        training = open_train_data(config, images)
        run = stack.enter_context(
            open_run(network, images, settings, training=training, seed=config.seed, cache_dir=cache, progress=progress)
        )
        for chain in chains:
            made = DefenseRun(run, chain)
            for plugin_spec in chosen:
                try:
                    with running_user_code(plugin_spec.name):
                        saving.paths.append(_examples(made, plugin_spec).write(folder))
                except ImageFileError:  # the data of all cells
                    raise
                except FreqRobustError as error:  # whatever a plugin does, the other sets are saved
                    saving.failed.append(f"{chain.spec} / {plugin_spec.spec}: {one_line(error)}")
                    progress.end(f"not saved: {saving.failed[-1]}")
    return saving


def adversarial(plugin_specs: Iterable[PluginSpec[Attack]]) -> list[PluginSpec[Attack]]:
    """Those that make adversarial examples.

    Raises:
        SpecError: there is none.
    """
    found = [s for s in plugin_specs if s.plugin.kind == "adversarial"]
    if not found:
        raise SpecError("none of the attacks is adversarial: there is nothing to save")
    return found


def _examples(made: DefenseRun, plugin_spec: PluginSpec[Attack]) -> SavedSet:
    run, target_model = made.run, made.target_model()
    data = run.data
    label = f"saving {made.chain.spec} / {plugin_spec.spec}"
    run.progress.begin(label, len(data))
    examples = make_examples(plugin_spec, target_model, made.batches, run.seed)
    run.progress.end(f"{label}: {int(examples.is_adversarial.sum())} of {len(data)} misclassified")
    threat = plugin_spec.plugin.threat()
    meta = Meta(
        freqrobust_version=__version__,
        attack=plugin_spec.spec,
        attack_params=plugin_spec.params,
        threat=ThreatRecord(norm=threat.norm, eps=threat.eps) if threat is not None else None,
        defense=made.chain.spec,
        defense_source=source_spec(made.chain),
        defense_params=made.chain.params,
        seed=run.seed,
        precision=run.precision,
        model=record(run.network, run.model_print),
        data=DataRecord(
            spec=data.spec,
            split=data.split,
            n=len(data),
            classes=data.classes,
            shape=list(data.shape),
            sha256=data.sha256,
            ids="all",
            class_subset=list(data.class_subset) or None,
            preprocessing=data.preprocessing.record() if data.preprocessing is not None else None,
        ),
    )
    return SavedSet(examples.images, data.ids, data.labels, examples.predictions, meta)
