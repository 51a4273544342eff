"""``evaluate``: every (defense, attack) pair over one dataset, one report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from freqrobust.core.config import EvalConfig
from freqrobust.core.errors import FreqRobustError, ImageFileError
from freqrobust.core.files import user_path
from freqrobust.core.options import takes
from freqrobust.core.progress import Progress, as_progress, finish, plan
from freqrobust.core.text import one_line
from freqrobust.core.user_code import running_user_code
from freqrobust.data.dataset import ImageData
from freqrobust.harness.certificate_records import check_contradictions, records
from freqrobust.harness.certify import Certification, certify
from freqrobust.harness.compilation import Work
from freqrobust.harness.diagnosis.examine import Depth, Examined, examine
from freqrobust.harness.example_images import example_images
from freqrobust.harness.inputs import needed, open_inputs, open_train_data, recorded
from freqrobust.harness.multi_model import Models, join, named
from freqrobust.harness.opening import Fit, check_settings, open_run, try_out
from freqrobust.harness.provenance import data_record
from freqrobust.harness.report_builder import assemble
from freqrobust.harness.run import DefenseRun, Measured, Run
from freqrobust.harness.run_plan import checks_label, differentiated, differentiated_for_others, pieces
from freqrobust.harness.shared_plan import SharedPlan, environment, shared_identity
from freqrobust.harness.sharing import Sharing, sole_process
from freqrobust.harness.tasks import cell_tasks, check_tasks
from freqrobust.harness.transfer import transfer
from freqrobust.plugins import corruption_names, suites
from freqrobust.plugins.base import Attack
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.selection import (
    check_certificates,
    check_stochastic,
    parse_certificates,
    parse_chains,
    parse_criterion,
    parse_selections,
)
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.results import corruption_summary
from freqrobust.results.records import EnvironmentRecord, Warned
from freqrobust.results.report import Report

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from freqrobust.core.option_types import EvaluateOptions


@takes(EvalConfig, "model", "data")
def evaluate(
    model: Models,
    data: Any,
    config: EvalConfig | None = None,
    *,
    progress: Progress | bool | None = None,
    **options: Unpack[EvaluateOptions],
) -> Report:
    """Measure a classifier, undefended and with each defense, under each attack.

    Prints nothing, and writes nothing unless ``run_dir`` or ``cache_dir`` is given.

    Args:
        model: an ``nn.Module`` from images in [0, 1] ``(N, C, H, W)`` to logits ``(N, K)``, or a model spec; or
            several of them in a sequence, or in a mapping from names: one report, all on the same samples.
        data: ``(images, labels)``, a dataset of torch, torchvision or Hugging Face, a ``DataLoader``, an
            :class:`ImageData` or a data spec.
        config: the options; ``options`` replace some of them.
        progress: ``True`` shows progress on standard error; an object with the methods of
            :class:`freqrobust.Progress` is told about the progress; by default nothing is shown.
        options: fields of :class:`freqrobust.EvalConfig`, which documents them. ``attacks`` and ``defenses`` take specs
            and plugin objects, and a sequence of defense objects is a composition, applied from left to right;
            ``attacks=["clean"]`` measures only the clean accuracy; ``train_data`` takes what ``data`` takes;
            ``mce_reference`` also takes a report; ``diagnose=None`` runs no checks.

    Returns:
        The report; cells that failed have the reason.

    Raises:
        FreqRobustError: the model, the data, an option or a spec is wrong; one line that says what would work.
    """
    with as_progress(progress) as progress:
        report = Evaluation(model, data, EvalConfig.of(config, options), progress).report()
    assert report is not None  # one process measures everything
    return report


class Evaluation:
    """An evaluation whose models, data and plugins are loaded and fit together, before anything is measured.

    Args:
        model: as in :func:`evaluate`.
        data: as in :func:`evaluate`.
        config: the options.
        progress: is told about the progress.
        options: as a report records them; by default those of ``config``.

    Raises:
        FreqRobustError: the model, the data, an option or a spec is wrong.
    """

    def __init__(
        self, model: Models, data: Any, config: EvalConfig, progress: Progress, options: dict[str, Any] | None = None
    ) -> None:
        self.config, self.progress, self.recorded = config, progress, options
        self.settings = check_settings(config)
        pairs = named(model)
        self.names, self.given = [name for name, _ in pairs], [one for _, one in pairs]
        self.given_data = data
        self.chains = parse_chains(config.defenses, config.undefended, config.train_data is not None)
        self.cache = _first_path(config.cache_dir, config.run_dir)
        self.networks, images = open_inputs(
            self.given, data, config, self.settings.device, cache_dir=self.cache, progress=progress
        )
        self.data = needed(images)
        self.training = open_train_data(config, self.data)
        attacks = config.attacks
        if attacks is None:
            attacks = suites.resolve("standard" if config.suite is None else config.suite, self.data.shape)
        self.attacks = parse_selections(attacks)
        check_stochastic(self.chains, self.attacks)
        for plugin_spec in self.attacks:
            with running_user_code(f"{plugin_spec.spec} failed"):
                plugin_spec.plugin.check_data(self.data)
        self.criterion, self.certificates = parse_criterion(config.criterion), parse_certificates(config.certify)
        check_certificates(self.certificates, self.chains, self.criterion)
        self.reference = _reference(config.mce_reference, self.data, self.attacks)

    def report(self, sharing: Sharing | None = None) -> Report | None:
        """Measure, and make the report.

        Args:
            sharing: what this process does of the work, where several processes measure into one run directory.

        Returns:
            The report; None from a process that only measures.

        Raises:
            FreqRobustError: the model does not fit the data, or the processes do not fit together.
        """
        # a model that does not fit is refused before anything is written, and before the first is measured
        fits = [try_out(network, self.data) for network in self.networks]
        run_dir = _first_path(self.config.run_dir)
        opened = sole_process(run_dir, self.plan) if sharing is None else sharing.opened(run_dir, self.plan())
        with opened:
            return self._measured(sharing, fits)

    def plan(self) -> SharedPlan:
        """What is measured, as other processes have to measure it too.

        Raises:
            SharingError: the results would depend on the machine.
        """
        config = self.config
        identity = shared_identity(
            networks=self.networks,
            data=self.data,
            training=self.training,
            chains=self.chains,
            attacks=self.attacks,
            certificates=self.certificates,
            criterion=self.criterion,
            settings=self.settings,
            options={
                name.replace("_", " "): getattr(config, name) for name in ("seed", "oblivious", "diagnose", "compile")
            },
        )
        options = self.recorded or recorded(config, self.given, self.given_data)
        return SharedPlan(identity, options, str(Path.cwd()), environment(self.settings))

    def _measured(self, sharing: Sharing | None, fits: Sequence[Fit]) -> Report | None:
        """The report of all models; None from a process that only measures."""
        config, several = self.config, len(self.networks) > 1
        planned = pieces(
            self.chains,
            self.attacks,
            len(self.data),
            oblivious=config.oblivious,
            depth=config.diagnose,
            certificates=self.certificates,
        )
        plan(self.progress, list(planned) * len(self.networks))
        reports = []
        for number, (name, network, fit) in enumerate(zip(self.names, self.networks, fits, strict=True)):
            if several:
                self.progress.say(f"measuring {name or getattr(network, 'spec', type(network).__name__)}")
            report = self._report(network, fit, number, sharing)
            if report is not None:
                if name is not None:
                    report.models[0].name = name
                reports.append(report)
        if len(reports) < len(self.networks):
            return None
        report = reports[0] if len(reports) == 1 else join(reports)
        report.config = self.recorded or recorded(config, self.given, self.given_data)
        if sharing is not None and sharing.environment is not None:
            report.environment = EnvironmentRecord.model_validate(sharing.environment)
        return report

    def _report(self, network: nn.Module, fit: Fit, number: int, sharing: Sharing | None) -> Report | None:
        """The report of one model."""
        config = self.config
        with open_run(
            network,
            self.data,
            self.settings,
            training=self.training,
            chosen=self.attacks,
            seed=config.seed,
            run_dir=_first_path(config.run_dir),
            cache_dir=self.cache,
            progress=self.progress,
            fit=fit,
            criterion=self.criterion,
            shared=sharing is not None,
            kind=sharing.kind if sharing is not None else None,
            work=Work(
                differentiated(self.chains, self.attacks, len(self.data), config.diagnose),
                differentiated_for_others(self.chains, self.attacks, config.oblivious),
                timed=sharing is None or sharing.times,
            ),
        ) as run:
            runs = [DefenseRun(run, chain) for chain in self.chains]
            if sharing is not None and not self._shared(run, runs, number, sharing):
                return None
            first = runs[:1] if config.examples else []
            measured, examined, certified = _measure(
                run, runs, self.certificates, config.oblivious, config.diagnose, first
            )
            pictures = example_images(first, measured, config.examples)
        warnings = [*run.warnings, *_warnings(run, examined, config.diagnose), *pictures.warnings]
        warnings += run.compilation.warnings(self.chains)
        report = assemble(run, measured, examined, warnings, self.reference)
        report.models[0].compilation = run.compilation.record(self.chains)
        report.examples = pictures.sets
        report.certificates = records(certified, measured, examined)
        if any(record.status == "failed" for record in report.certificates):
            report.status = "partial"
        return report

    def _shared(self, run: Run, runs: Sequence[DefenseRun], number: int, sharing: Sharing) -> bool:
        """Do this process's part of the tasks; whether it makes the report."""
        config, source = self.config, _undefended(run, runs)
        tasks = cell_tasks(run, runs, source, self.certificates, config.oblivious)
        if not sharing.measure(f"cells {number}", tasks, run.journal, run.failures):
            return False
        if config.diagnose is not None:
            measured = [one.measure() for one in runs]
            _transfer(run, runs, measured, source, config.oblivious)
            for first in (True, False):
                tasks = check_tasks(run, runs, measured, source, config.diagnose, first)
                sharing.measure(f"checks {number} {'first' if first else 'others'}", tasks, run.checked, run.failures)
        return sharing.reports


def _measure(
    run: Run,
    runs: Sequence[DefenseRun],
    certificates: Sequence[PluginSpec[Certificate]],
    oblivious: bool,
    depth: Depth | None,
    kept: Sequence[DefenseRun],
) -> tuple[list[Measured], list[Examined | None], list[Certification]]:
    """All cells of all defenses; then those that need several models; and what was examined and certified of each.

    Raises:
        ContradictionError: an attack has found an adversarial example for a certified sample.
    """
    source = _undefended(run, runs)
    measured: list[Measured] = []
    examined: list[Examined | None] = []
    certified: list[Certification] = []
    several_models = oblivious or depth == "full"
    for one in runs:
        measured.append(one.measure())
        certified.append(certify(one, measured[-1], certificates))
        if not several_models:
            examined.append(_examine(one, measured[-1], depth, source))
            if one not in kept:
                one.forget()  # one model at a time
    if several_models:
        _transfer(run, runs, measured, source, oblivious)
        examined = [_examine(r, m, depth, source) for r, m in zip(runs, measured, strict=True)]
    for certification, cells, checks in zip(certified, measured, examined, strict=True):
        check_contradictions(certification, cells, checks, run.data.ids)
    return measured, examined, certified


def _undefended(run: Run, runs: Sequence[DefenseRun]) -> DefenseRun:
    return next((one for one in runs if not one.chain.parts), DefenseRun(run, DefenseChain()))


def _transfer(
    run: Run, runs: Sequence[DefenseRun], measured: Sequence[Measured], source: DefenseRun, oblivious: bool
) -> None:
    """The oblivious cells of all defenses."""
    targets = [(r, m) for r, m in zip(runs, measured, strict=True) if r.chain.parts and m.error is None]
    for plugin_spec in run.attacks if oblivious else []:
        attack = plugin_spec.plugin
        if isinstance(attack, Attack) and attack.kind == "adversarial" and targets:
            transfer(run, plugin_spec, source, targets)


def _examine(run: DefenseRun, measured: Measured, depth: Depth | None, source: DefenseRun) -> Examined | None:
    """What checks find of the robust accuracies of one defense; None where there is nothing to examine."""
    if depth is None or measured.error is not None:
        return None
    origin = source if run.chain.parts else None
    try:
        with running_user_code(run.chain.name):
            return examine(run, measured.clean, measured.cells, measured.oblivious, depth, origin)
    except ImageFileError:
        raise
    except FreqRobustError as error:  # the cells are kept
        run.run.progress.say(f"{run.chain.spec}: the diagnosis failed: {one_line(error)}")
        return Examined(depth, failed=one_line(error))
    finally:
        finish(run.run.progress, checks_label(run.chain))


def _warnings(run: Run, examined: Sequence[Examined | None], diagnose: Depth | None) -> list[Warned]:
    """What is to be known about a run as a whole."""
    warnings = []
    if diagnose == "full" and all(one is None for one in examined):
        message = "nothing was diagnosed: no attack with a budget (norm and eps above 0) was measured"
        warnings.append(Warned(code="not-diagnosed", message=message))
    for path in [*run.journal.damaged, *run.checked.damaged]:
        warnings.append(Warned(code="damaged-journal", message=f"{path} was damaged and has been measured again"))
    return warnings


def _reference(
    given: str | os.PathLike[str] | Report | None, data: ImageData, chosen: list[PluginSpec[Attack]]
) -> corruption_summary.Reference | None:
    wanted = [plugin_spec.params for plugin_spec in chosen if plugin_spec.name == corruption_names.ATTACK]
    record = data_record(data)
    if given is None:
        return corruption_summary.alexnet() if corruption_summary.applies_alexnet(record, wanted) else None
    return corruption_summary.read_reference(given, record, wanted)


def _first_path(*paths: str | os.PathLike[str] | None) -> Path | None:
    return next((user_path(path, "run_dir or cache_dir") for path in paths if path is not None), None)
