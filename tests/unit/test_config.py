"""Options: one field each, for the command line, the project file and Python."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import freqrobust
from freqrobust import AnalyzeConfig, EvalConfig, analyze, evaluate
from freqrobust.attacks.fgsm import FGSM
from freqrobust.cli.options import command
from freqrobust.core.command_config import CheckConfig, EvalCommand, VerifyCommand
from freqrobust.core.commands import COMMANDS, reserved_names
from freqrobust.core.errors import SpecError
from freqrobust.core.options import RUN, OptionError, Options, option, takes
from freqrobust.defenses.input_filter import LowPass
from freqrobust.gate import project
from freqrobust.harness.save_adversarial import save_adversarial
from freqrobust.harness.verify import verify


class Extended(EvalConfig):
    """The options of ``eval`` and one more."""

    criterion: str = option("misclassification", "When a sample counts as attacked.", RUN, "NAME")


def called(*arguments: str, cls: type[Options] = Extended) -> tuple[Any, str]:
    """The configuration that a command line gives, and what is printed."""
    configs: list[Any] = []

    def execute(config: Any) -> int:
        configs.append(config)
        return 0

    app = typer.Typer()
    app.command()(command(cls, execute))
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return (configs[0] if configs else None), result.output


def test_a_new_field_is_an_option_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = called("--criterion", "targeted", "--defense", "smooth", "--defense", "lowpass:radius=3")
    assert (config.criterion, config.defenses) == ("targeted", ["smooth", "lowpass:radius=3"])
    text = called("--help")[1]
    assert "--criterion" in text
    assert "When a sample counts as attacked." in text
    assert "[default: misclassification]" in text

    monkeypatch.setitem(project.TABLES, "eval", Extended)
    file = tmp_path / project.NAME
    file.write_text('[eval]\ncriterion = "targeted"\n')
    assert project.read_project(file).eval.criterion == "targeted"  # type: ignore[attr-defined]

    @takes(Extended, "model", "data")
    def measure(model: Any, data: Any, config: Extended | None = None, **options: Any) -> Extended:
        return Extended.of(config, options)

    parameter = inspect.signature(measure).parameters["criterion"]
    assert (parameter.default, parameter.annotation) == ("misclassification", str)
    assert measure(None, None, criterion="targeted").criterion == "targeted"
    assert measure(None, None, Extended(criterion="targeted"), seed=3).criterion == "targeted"
    with pytest.raises(OptionError, match=r"unknown option 'critrion'; did you mean 'criterion'\?"):
        measure(None, None, critrion="targeted")
    assert measure(None, None).record()["criterion"] == "misclassification"


@pytest.mark.parametrize(
    ("function", "options"),
    [(evaluate, EvalConfig), (analyze, AnalyzeConfig), (save_adversarial, None), (verify, None)],
)
def test_signatures_show_the_options(function: Any, options: type[Options] | None) -> None:
    parameters = inspect.signature(function).parameters
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    assert parameters["batch_size"].default == "auto"
    for name, field in options.model_fields.items() if options is not None else ():
        if name not in ("model", "data"):
            assert parameters[name].default == field.default
            assert f"    {name}: {field.description}" in (options.__doc__ or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attcks": []}, "unknown option 'attcks'; did you mean 'attacks'?"),
        ({"baseline": False}, "unknown option 'baseline'; did you mean 'undefended'?"),
        ({"zzz": 1}, "unknown option 'zzz' (options: model, arch, "),
        ({"batch_size": 0}, "batch_size should be auto or at least 1, but got 0"),
        ({"batch_size": True}, "batch_size should be auto or at least 1, but got True"),
        ({"batch_size": 10**7}, "batch_size should be auto or at most 1000000, but got 10000000"),
        ({"seed": 1.5}, "seed should be a whole number, but got 1.5"),
        ({"seed": True}, "seed should be a whole number, but got True"),
        ({"seed": 2**63}, "seed should be at most 9223372036854775807, but got 9223372036854775808"),
        ({"limit": 0}, "limit should be at least 1, but got 0"),
        ({"limit": 1, "first": 1}, "give either limit or first, not both"),
        ({"attacks": ["pgd"], "suite": "quick"}, "give either attacks or suite, not both"),
        ({"undefended": False}, "undefended=False needs defenses: otherwise there is no model to evaluate"),
        ({"undefended": "no"}, "undefended should be a valid boolean, but got 'no'"),
        ({"precision": "{fp16}"}, "precision should be 'fp32' or 'bf16', but got '{fp16}'"),
        ({"diagnose": "deep"}, "diagnose should be 'quick' or 'full', but got 'deep'"),
        ({"arch": [3]}, "arch should be a valid string, but got 3"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        EvalConfig(**options)
    assert str(error.value).startswith(message)
    with pytest.raises(SpecError) as error:
        evaluate("demo", "digits", **options)
    assert str(error.value).startswith(message)


def test_config_has_to_be_one() -> None:
    with pytest.raises(SpecError, match="config should be an object of EvalConfig, but got AnalyzeConfig"):
        evaluate("demo", "digits", AnalyzeConfig())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "--batch-size should be auto or at least 1, but got '0'"),
        (["--no-undefended"], "--no-undefended needs --defense: otherwise there is no model to evaluate"),
        (["--attack", "pgd", "--suite", "quick"], "give either --attack or --suite, not both"),
        (["--confident"], "--confident needs --fail-under: without it there is nothing to judge"),
    ],
)
def test_the_command_line_names_its_flags(arguments: list[str], message: str) -> None:
    with pytest.raises(SpecError) as error:
        called(*arguments, cls=EvalCommand)
    assert str(error.value) == message


def test_what_is_typed_is_what_is_meant() -> None:
    written = (
        "--limit 7 --no-baseline --no-oblivious --defense smooth --diagnose --seed -3 --batch-size 4 --json=x.json"
    )
    config, _ = called(*written.split(), cls=EvalCommand)
    assert config == EvalCommand(
        limit=7,
        undefended=False,
        oblivious=False,
        defenses="smooth",
        diagnose="full",
        seed=-3,
        batch_size=4,
        json_file="x.json",
    )
    assert called("DIR", cls=VerifyCommand)[0] == VerifyCommand(directory="DIR")
    assert called(cls=CheckConfig)[0] == CheckConfig()


def test_names_of_options_are_reserved() -> None:
    assert {"attack", "attacks", "json", "json_file", "no_undefended", "no_baseline", "help"} <= reserved_names("eval")
    for name, cls in COMMANDS.items():
        assert set(cls.model_fields) <= reserved_names(name)


def test_a_spec_is_loaded_as_the_options_say(digits: Any, demo: Any, cache: Path) -> None:
    given = {"attacks": ["clean"], "device": "cpu", "cache_dir": cache}
    report = evaluate("demo", "digits", EvalConfig(split="train", limit=30), **given)
    assert (report.data.n, report.data.split) == (30, "train")
    assert evaluate("demo", digits, first=7, **given).data.n == 7
    with pytest.raises(SpecError, match="normalize should be given once for all models, or once for each model"):
        evaluate("demo", "digits", normalize=["none", "half"])


def test_the_report_says_what_was_asked(digits: Any, demo: Any, cache: Path) -> None:
    attacks = ["fgsm:eps=0.1", FGSM(eps=0.2)]
    defenses = [LowPass(radius=3), (LowPass(radius=2), LowPass(radius=3)), "lowpass:radius=1"]
    given = {"attacks": iter(attacks), "defenses": iter(defenses), "device": "cpu", "seed": 4}
    report = evaluate("demo", digits.first(5), **given, cache_dir=cache)
    assert report.config["attacks"] == ["fgsm:eps=0.1", "fgsm:eps=0.2"]
    assert report.config["defenses"] == ["lowpass:radius=3", "lowpass:radius=2+lowpass:radius=3", "lowpass:radius=1"]
    assert (report.config["seed"], report.config["device"], report.config["model"]) == (4, "cpu", ["demo"])
    assert not {"run_dir", "cache_dir"} & report.config.keys()  # where it was written is no part of it
    asked = {key: value for key, value in report.config.items() if key != "data"}
    again = evaluate(**asked, data=digits.first(5), cache_dir=cache)
    assert again.cells[0].outcomes == report.cells[0].outcomes
    assert freqrobust.Report.model_validate_json(report.dumps()).config == report.config
