"""``reproduce``: run a published experiment and record what was seen."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from freqrobust.core.errors import FreqRobustError, SpecError
from freqrobust.core.files import user_path
from freqrobust.core.options import takes
from freqrobust.core.progress import Progress, as_progress
from freqrobust.core.training_config import ReproduceConfig
from freqrobust.core.user_code import running_user_code
from freqrobust.core.version import __version__
from freqrobust.experiments.bench import Bench
from freqrobust.experiments.experiment import Experiment, experiments
from freqrobust.harness.devices import resolve_device
from freqrobust.harness.provenance import data_record, environment_record, now
from freqrobust.plugins.specs import PluginSpec
from freqrobust.results.analysis import PictureRecord
from freqrobust.results.figures import can_draw, encode, styled
from freqrobust.results.findings import Findings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from freqrobust.core.option_types import ReproduceOptions


@takes(ReproduceConfig)
def reproduce(
    experiment: str | Experiment | PluginSpec[Experiment],
    config: ReproduceConfig | None = None,
    *,
    progress: Progress | bool | None = None,
    **options: Unpack[ReproduceOptions],
) -> Findings:
    """Run one published experiment. Prints nothing and writes nothing but the cache.

    Args:
        experiment: a name such as ``wang-table1``, with parameters if need be, or an object.
        config: the options; ``options`` replace some of them.
        progress: as in :func:`freqrobust.evaluate`.
        options: fields of :class:`freqrobust.core.training_config.ReproduceConfig`, which documents them.

    Raises:
        FreqRobustError: the experiment, the data or an option is wrong; one line that says what would work.
    """
    config = ReproduceConfig.of(config, options)
    chosen = select(experiment)
    with ExitStack() as stack:
        bench = Bench(
            scale=config.scale,
            device=resolve_device(config.device),
            seed=config.seed,
            test_spec=config.data,
            train_spec=config.train_data,
            data_dir=user_path(config.data_dir, "--data-dir") if config.data_dir is not None else None,
            resize=config.resize,
            crop=config.crop,
            cache_dir=user_path(config.cache_dir, "--cache-dir") if config.cache_dir is not None else None,
            progress=stack.enter_context(as_progress(progress)),
        )
        bench.check_data()
        return run_on(chosen, bench)


def run_on(chosen: PluginSpec[Experiment], bench: Bench) -> Findings:
    """Run an experiment on a bench, and record what it was run with."""
    start = time.perf_counter()
    with running_user_code(f"{chosen.spec} failed"):
        findings = chosen.plugin.run(bench)
    findings.seconds = round(time.perf_counter() - start, 1)
    findings.freqrobust_version, findings.created = __version__, now()
    findings.name, findings.spec, findings.params = chosen.name, chosen.spec, chosen.params
    findings.source, findings.scale, findings.seed = type(chosen.plugin).source, bench.scale, bench.seed
    findings.environment = environment_record(bench.device, "fp32")
    used = bench.used
    findings.data = data_record(used["test"]) if "test" in used else None
    findings.train_data = data_record(used["train"]) if "train" in used else None
    if can_draw():
        try:
            findings.picture = _picture(chosen, findings)
        except FreqRobustError as error:  # what was measured is kept
            findings.notes.append(str(error))
    return findings


def _picture(chosen: PluginSpec[Experiment], findings: Findings) -> PictureRecord | None:
    with styled(), running_user_code(f"the picture of {chosen.spec} failed"):
        drawn = chosen.plugin.draw(findings)
        return encode(drawn, "png", f"{chosen.name}: {findings.source}") if drawn is not None else None


def select(given: str | Experiment | PluginSpec[Experiment]) -> PluginSpec[Experiment]:
    """The experiment of a spec or an object.

    Raises:
        SpecError: there is none of that name, or it is a sweep.
    """
    if isinstance(given, PluginSpec):
        return given
    if isinstance(given, Experiment):
        return experiments.select(given)
    parsed = experiments.parse(given)
    if len(parsed) != 1:
        raise SpecError(f"{given} is a sweep of {len(parsed)}; run one at a time")
    return parsed[0]
