"""``analyze``: one analysis of one or more models, undefended and with each defense."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from freqrobust.core.config import AnalyzeConfig
from freqrobust.core.errors import DataError, PluginError, SpecError
from freqrobust.core.files import user_path
from freqrobust.core.options import takes
from freqrobust.core.progress import Progress, as_progress
from freqrobust.core.user_code import running_user_code
from freqrobust.core.version import __version__
from freqrobust.data.dataset import ImageData
from freqrobust.harness.analysis import Analysis, analyses
from freqrobust.harness.analysis_context import AnalysisContext, Missing
from freqrobust.harness.batches import Batches
from freqrobust.harness.defend import copy_of, defend
from freqrobust.harness.inputs import Model, open_inputs, open_train_data, recorded
from freqrobust.harness.multi_model import Models
from freqrobust.harness.opening import Settings, about_data, about_model, check_settings, open_run, prepared_model
from freqrobust.harness.provenance import data_record, environment_record, now
from freqrobust.harness.run import DefenseRun, Run
from freqrobust.harness.target_model import TargetModel
from freqrobust.models.classifier import Classifier, set_eval
from freqrobust.models.fingerprint import fingerprint, record
from freqrobust.models.loading import load_model
from freqrobust.plugins.context import DefenseContext
from freqrobust.plugins.selection import check_stochastic, parse_chains
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.results.analysis import AnalysisResult
from freqrobust.results.analysis_record import AnalysisRecord
from freqrobust.results.figures import encode, require, styled
from freqrobust.results.records import DataRecord, ModelRecord, Warned
from freqrobust.results.report import Report

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from freqrobust.core.option_types import AnalyzeOptions


@takes(AnalyzeConfig, "model", "data")
def analyze(
    model: Models | None,
    data: Any,
    analysis: str | Analysis | PluginSpec[Analysis],
    config: AnalyzeConfig | None = None,
    *,
    picture: Literal["png", "svg"] | None = None,
    progress: Progress | bool | None = None,
    **options: Unpack[AnalyzeOptions],
) -> AnalysisRecord:
    """Run one analysis of one or more models, side by side. Prints nothing and writes nothing.

    Example:
        >>> record = analyze("demo", "digits", "heatmap:norm=1")  # doctest: +SKIP
        >>> record.results[0].error[4][4]  # of an 8 x 8 image the zero frequency  # doctest: +SKIP

    Args:
        model: a module from images in [0, 1] to logits, or a model spec; several in a list, or by label. None for an
            analysis of the data alone, such as ``aum``.
        data: as in :func:`freqrobust.evaluate`; None for an analysis of the weights alone, such as ``kernels``.
        analysis: a spec such as ``heatmap:norm=4``, or an object.
        config: the options; ``options`` replace some of them.
        picture: also draw the results, in this format.
        progress: as in :func:`freqrobust.evaluate`.
        options: fields of :class:`freqrobust.AnalyzeConfig`, which documents them.

    Raises:
        FreqRobustError: the models, the data, an option or a spec is wrong; one line that says what would work.
    """
    config = AnalyzeConfig.of(config, options)
    chosen = select(analysis)
    if picture is not None:
        require()
    plugin, settings = chosen.plugin, check_settings(config)
    where, seed = settings.device, config.seed
    if data is None and plugin.needs_data:
        raise DataError(f"{chosen.name} needs images: give data (on the command line: --data)")
    chains = parse_chains(config.defenses, config.undefended, config.train_data is not None)
    check_attacks(plugin, chains)
    check_subject(chosen, model, chains)
    cache = user_path(config.cache_dir, "cache_dir") if config.cache_dir is not None else None
    pairs = labelled(model) if model is not None and plugin.needs_model else []
    with ExitStack() as stack:
        progress = stack.enter_context(as_progress(progress))
        opened, images = open_inputs([one for _, one in pairs], data, config, where, cache_dir=cache, progress=progress)
        networks = [(label, network) for (label, _), network in zip(pairs, opened, strict=True)]
        training = open_train_data(config, images)
        if images is not None and not plugin.needs_model:
            results, records = [_look_at_data(plugin, images, settings, seed, progress)], []
            warnings = about_data(images)
        elif images is None:
            context = DefenseContext(
                device=where,
                seed=seed,
                batch_size=DefenseContext.batch_size if settings.batch_size == "auto" else settings.batch_size,
                train_data=training,
                cache_dir=cache,
                progress=progress,
            )
            stuck = [stack.enter_context(prepared_model(network, where)) for _, network in networks]
            results = _look_at_weights(plugin, networks, chains, context)
            records = [record(network, fingerprint(network)) for _, network in networks]
            warnings = [
                w for (_, network), names in zip(networks, stuck, strict=True) for w in about_model(network, names)
            ] + about_data(None, training)
        else:
            batches = _Laboratory(stack, images, training, settings, seed, cache, progress)
            for label, network in networks:
                batches.add(label, network)
            batches.subjects = len(batches.runs) * len(chains)
            results = [
                _look(plugin, batches, position, chain) for position in range(len(batches.runs)) for chain in chains
            ]
            records = [batches.record(position) for position in range(len(batches.runs))]
            warnings = batches.warnings
    with running_user_code(f"{type(plugin).__name__} failed"):
        tables = plugin.tables(results)
        drawn = draw(plugin, results, picture) if picture is not None else None
    return AnalysisRecord(
        freqrobust_version=__version__,
        created=now(),
        seed=seed,
        config=recorded(config, [one for _, one in pairs], data),
        name=chosen.name,
        spec=chosen.spec,
        params=chosen.params,
        models=records,
        data=data_record(images) if images is not None else None,
        environment=environment_record(where, "fp32"),
        results=results,
        tables=tables,
        picture=drawn,
        warnings=warnings,
    )


def select(analysis: str | Analysis | PluginSpec[Analysis]) -> PluginSpec[Analysis]:
    """The one analysis of a spec.

    Raises:
        SpecError: unknown, or a sweep.
    """
    if isinstance(analysis, PluginSpec):
        return analysis
    if not isinstance(analysis, str):
        return analyses.select(analysis)
    found = analyses.parse(analysis)
    if len(found) != 1:
        raise SpecError(f"{analysis!r} is a sweep of {len(found)}; run one analysis at a time")
    return found[0]


def check_subject(chosen: PluginSpec[Analysis], model: Models | None, chains: Sequence[DefenseChain]) -> None:
    """Refuse models and defenses for an analysis that looks at the data alone, and no model for others.

    Raises:
        SpecError: what is given does not fit the analysis.
    """
    if chosen.plugin.needs_model:
        if model is None:
            raise SpecError(f"{chosen.name} needs a model")
        return
    if model is not None and not (isinstance(model, Sequence | Mapping) and len(model) == 0):
        raise SpecError(f"{chosen.name} looks at the data, with networks that it trains itself: give no model")
    if any(chain.parts for chain in chains):
        raise SpecError(f"{chosen.name} looks at the data, with networks that it trains itself: give no defense")


def check_attacks(plugin: Analysis, chains: Sequence[DefenseChain]) -> None:
    """Refuse the attacks of an analysis that are wrong, or that do not fit one of the defenses.

    Raises:
        SpecError: one of them is, or does not.
    """
    with running_user_code(f"{type(plugin).__name__}.attack_specs() failed"):
        plugin_specs = plugin.attack_specs()
    check_stochastic(chains, plugin_specs)


def draw(plugin: Analysis, results: Sequence[AnalysisResult], format: Literal["png", "svg"]) -> Any:
    """The picture of the results; None where the analysis draws nothing."""
    with styled():
        figure = plugin.draw(results)
        if figure is None:
            return None
        alt = f"{type(plugin).__doc__ or type(plugin).__name__}".split("\n")[0].strip()
        return encode(figure, format, f"{alt} {', '.join(result.label for result in results)}")


def labelled(model: Models) -> list[tuple[str, Model]]:
    """Models with labels that tell them apart."""
    if isinstance(model, Mapping):
        return list(model.items())
    several: list[Model] = [model] if isinstance(model, nn.Module | str | os.PathLike) else list(model)
    if not several:
        raise SpecError("there has to be a model")
    labels = [_label(one) for one in several]
    return [
        (label if labels.count(label) == 1 else f"{label} ({labels[: i + 1].count(label)})", one)
        for i, (label, one) in enumerate(zip(labels, several, strict=True))
    ]


def _label(model: Model) -> str:
    spec = model.spec if isinstance(model, Classifier) else model
    if isinstance(spec, nn.Module):
        return type(spec).__name__
    text = os.fspath(spec)
    return Path(text).stem if Path(text).suffix and ":" not in text else text


def _look(plugin: Analysis, batches: _Laboratory, position: int, chain: DefenseChain) -> AnalysisResult:
    """One model under one defense."""
    one = DefenseRun(batches.runs[position], chain)
    target_model = one.target_model()
    target_model.forwards = 0
    target_model.view.reset()
    label = batches.label(position, chain)
    context = AnalysisContext(label, target_model, one.batches, batches.seed, batches)
    found = _run(plugin, target_model.exact, batches.data, context)
    found.model, found.defense, found.defense_spec, found.defense_params = (
        position,
        chain.name,
        chain.spec,
        chain.params,
    )
    batches.warnings += [
        Warned(code=code, message=f"{label}: {message}", model=position, defense=chain.spec)
        for code, message in context.warnings
    ]
    found.forwards = target_model.forwards + target_model.view.forwards
    found.backwards = target_model.view.backwards
    batches.progress.end(f"{label}: {found.sentence or 'done'} ({found.seconds:.1f} s)")
    return found


def _run(plugin: Analysis, model: nn.Module, data: ImageData, context: AnalysisContext) -> AnalysisResult:
    """What the plugin finds, checked, with its label and time."""
    start = time.perf_counter()
    with running_user_code(f"{type(plugin).__name__} failed on {context.label}"):
        found = plugin.run(model, data, context)
    if not isinstance(found, AnalysisResult):
        raise PluginError(
            f"{type(plugin).__name__}.run() should return an AnalysisResult, but got {type(found).__name__}"
        )
    found.label, found.seconds = context.label, round(time.perf_counter() - start, 4)
    return found


def _look_at_weights(
    plugin: Analysis,
    networks: Sequence[tuple[str, nn.Module]],
    chains: Sequence[DefenseChain],
    defending: DefenseContext,
) -> list[AnalysisResult]:
    """Every model under every defense, without images."""
    results = []
    for position, (name, network) in enumerate(networks):
        for chain in chains:
            exact, _ = defend(copy_of(network) if chain.parts else network, chain, defending)
            set_eval(exact)
            label = subject_label(name, chain, len(networks))
            missing: Any = Missing(type(plugin).__name__, "needs_data = False", "images")
            context = AnalysisContext(label, missing, missing, defending.seed, missing)
            found = _run(plugin, exact, missing, context)
            found.model, found.defense = position, chain.name
            found.defense_spec, found.defense_params = chain.spec, chain.params
            defending.progress.end(f"{label}: {found.sentence or 'done'} ({found.seconds:.1f} s)")
            results.append(found)
    return results


def subject_label(model: str, chain: DefenseChain, models: int) -> str:
    """Names a subject: the model, the defense, or both where both differ."""
    if not chain.parts:
        return model
    return chain.spec if models == 1 else f"{model} + {chain.spec}"


def _look_at_data(
    plugin: Analysis, data: ImageData, settings: Settings, seed: int, progress: Progress
) -> AnalysisResult:
    """The data, without a model."""
    size = 256 if settings.batch_size == "auto" else settings.batch_size
    batches = Batches(data, settings.device, size, True, progress)
    missing: Any = Missing(type(plugin).__name__, "needs_model = False", "the model")
    found = _run(plugin, missing, data, AnalysisContext(data.spec, missing, batches, seed, missing))
    progress.end(f"{data.spec}: {found.sentence or 'done'} ({found.seconds:.1f} s)")
    return found


class _Laboratory:
    """The models of one analysis, all frozen on the device until it is done, and what they share."""

    def __init__(
        self,
        stack: ExitStack,
        data: ImageData,
        training: ImageData | None,
        settings: Settings,
        seed: int,
        cache_dir: Path | None,
        progress: Progress,
    ) -> None:
        self.stack, self.data, self.training, self.settings = stack, data, training, settings
        self.seed, self.progress = seed, progress
        self.cache_dir = cache_dir
        self.labels: list[str] = []
        self.runs: list[Run] = []
        self.warnings: list[Warned] = []
        self.memory: dict[str, Any] = {}
        self.subjects = 0
        self.references: dict[str | None, tuple[str, TargetModel]] = {}

    def add(self, label: str, model: nn.Module) -> None:
        """Take a model in; it has to fit the data."""
        self.runs.append(self._open(model))
        self.labels.append(label)

    def _open(self, network: nn.Module) -> Run:
        run = self.stack.enter_context(
            open_run(
                network,
                self.data,
                self.settings,
                training=self.training,
                seed=self.seed,
                cache_dir=self.cache_dir,
                progress=self.progress,
            )
        )
        self.warnings += run.warnings
        return run

    def _load(self, spec: str) -> nn.Module:
        return load_model(spec, data=self.data, device=self.settings.device)

    def label(self, position: int, chain: DefenseChain) -> str:
        """See :func:`subject_label`."""
        return subject_label(self.labels[position], chain, len(self.runs))

    def record(self, position: int) -> ModelRecord:
        run = self.runs[position]
        return record(run.network, run.model_print)

    def reference(self, spec: str | None) -> tuple[str, TargetModel]:
        """Label and target_model of the reference; see :class:`freqrobust.harness.analysis_context.Laboratory`."""
        if spec not in self.references:
            run = self.runs[0] if spec is None else self._open(self._load(spec))
            label = self.labels[0] if spec is None else _label(spec)
            self.references[spec] = label, DefenseRun(run, DefenseChain()).target_model()
        return self.references[spec]


def put_into(found: AnalysisRecord, path: str | os.PathLike[str]) -> int:
    """Add an analysis to a report of the same data; the same analysis of the same models is replaced.

    Returns:
        How many analyses the report holds now.

    Raises:
        ReportError: the file is no report.
        DataError: the report is about other samples.
    """
    report = check_into(path, found.data)

    def key(one: AnalysisRecord) -> object:
        return one.name, one.params, [model.sha256 for model in one.models], [r.defense_spec for r in one.results]

    report.analyses = [one for one in report.analyses if key(one) != key(found)] + [found]
    report.to_json(path)
    return len(report.analyses)


def check_into(path: str | os.PathLike[str], data: ImageData | DataRecord | None) -> Report:
    """The report that an analysis of these samples, or of weights alone, is to be added to."""
    report = Report.from_json(path)
    if data is not None and report.data.sha256 != data.sha256:
        raise DataError(
            f"{os.fspath(path)} is about other samples ({report.data.spec}, {report.data.n} of them): "
            f"give the same --data, --limit and --first, not {data.spec}"
        )
    return report
