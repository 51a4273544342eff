"""The pytest plugin: the fixture ``freqrobust_eval``.

    def test_robust(freqrobust_eval):
        result = freqrobust_eval(model, (images, labels), suite="quick")
        result.assert_accuracy("pgd:eps=2/255", at_least=0.45)
        result.assert_no_regression("baseline.json")

Importing this module imports neither torch nor the engine: a test session that does not use the fixture pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from freqrobust.results.gate_record import GateRecord
    from freqrobust.results.report import Report

UPDATE = "--freqrobust-update-baselines"
#: Options of :func:`freqrobust.evaluate` by which models and data are loaded.
_LOADING = ("arch", "normalize", "trust_checkpoint", "data_dir", "split", "resize", "crop")
_WRITTEN = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes baselines instead of comparing with them."""
    group = parser.getgroup("freqrobust", "robustness of image classifiers")
    group.addoption(
        UPDATE,
        action="store_true",
        default=False,
        help="write the baselines of assert_no_regression instead of comparing with them",
    )


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """List the baselines that were written."""
    for path in config.stash.get(_WRITTEN, []):
        terminalreporter.write_line(f"freqrobust: baseline written: {path}")


class Evaluated:
    """A report with assertions, which show the table of the gate when they fail.

    Attributes:
        report: the :class:`freqrobust.Report`.
    """

    def __init__(self, report: Report, config: pytest.Config) -> None:
        self.report = report
        self._config = config

    def __repr__(self) -> str:
        return f"<freqrobust report of {len(self.report.cells)} cells, n = {self.report.data.n}>"

    def assert_accuracy(self, cell: str, *, at_least: float, confident: bool = False) -> None:
        """Fail where an accuracy is lower than required.

        Args:
            cell: ``[DEFENSE/]CELL``, such as ``clean``, ``pgd:eps=8/255`` or ``smooth/worst``; every cell that the
                name stands for has to reach the threshold.
            at_least: the required accuracy, as a share.
            confident: judge on the low end of the 95 % interval.
        """
        __tracebackhide__ = True
        from freqrobust.gate.thresholds import Threshold, threshold_rows
        from freqrobust.results.gate_record import GateRecord

        rows = threshold_rows(self.report, [Threshold(cell, at_least)], confident)
        self._fail_unless(GateRecord(passed=all(row.passed for row in rows), thresholds=rows))

    def assert_no_regression(
        self,
        baseline: str | Path,
        *,
        cells: Iterable[str] = ("default",),
        alpha: float = 0.05,
        max_drop: float = 0.01,
        max_drops: Mapping[str, float] | None = None,
        strict: bool = False,
    ) -> None:
        """Fail where the accuracy of a gate cell dropped significantly from the baseline, by more than ``max_drop``.

        ``pytest --freqrobust-update-baselines`` writes the baseline instead. The arguments are those of
        ``freqrobust compare``.
        """
        __tracebackhide__ = True
        from freqrobust.core.files import user_path
        from freqrobust.gate.compare import compare
        from freqrobust.results.gate_record import GateRecord

        path = user_path(baseline, "baseline")
        if self._config.getoption(UPDATE):
            self.report.to_json(path)
            self._config.stash.setdefault(_WRITTEN, []).append(str(path))
            return
        if not path.exists():
            pytest.fail(
                f"there is no baseline {path}: run pytest {UPDATE} once to write it, and keep it under version control",
                pytrace=False,
            )
        comparison = compare(
            path,
            self.report,
            cells=tuple(cells),
            alpha=alpha,
            max_drop=max_drop,
            max_drops=max_drops,
            strict=strict,
        )
        self._fail_unless(GateRecord(passed=comparison.passed, comparison=comparison))

    def _fail_unless(self, record: GateRecord) -> None:
        __tracebackhide__ = True
        if not record.passed:
            from freqrobust.results.rendering import parse_outputs, rendered

            (output,) = parse_outputs(["table:show=gate,width=100=-"], "report")
            judged = self.report.model_copy(update={"gate": record})
            pytest.fail(rendered(output, {"": judged}), pytrace=False)


@pytest.fixture(scope="session")
def freqrobust_eval(request: pytest.FixtureRequest) -> Callable[..., Evaluated]:
    """``freqrobust_eval(model, data, suite="quick", ...)``: :func:`freqrobust.evaluate`, once a session for equal arguments.

    What is evaluated is the model as it is then: after a change of its weights the same call evaluates again.
    """
    known: dict[str, Evaluated] = {}

    def evaluate(model: Any, data: Any, **options: Any) -> Evaluated:
        __tracebackhide__ = True
        import freqrobust

        network, images, key = _identified(model, data, options)
        if key not in known:
            known[key] = Evaluated(freqrobust.evaluate(network, images, **options), request.config)
        return known[key]

    return evaluate


def _identified(model: Any, data: Any, options: Mapping[str, Any]) -> tuple[Any, Any, str]:
    """The model and the data, loaded, and a key that is the same for the same content."""
    import torch

    from freqrobust.core.config import EvalConfig
    from freqrobust.core.files import identity
    from freqrobust.data.loading import as_data
    from freqrobust.harness.inputs import open_inputs
    from freqrobust.models.fingerprint import fingerprint

    loading = {name: options[name] for name in _LOADING if name in options}
    (network,), images = open_inputs([model], data, EvalConfig(**loading), torch.device("cpu"))
    assert images is not None
    described = {
        name: as_data(value).sha256 if name == "train_data" and value is not None else repr(value)
        for name, value in options.items()
    }
    return network, images, identity([fingerprint(network), type(network).__qualname__, images.sha256, described])
