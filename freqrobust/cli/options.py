"""The options of the commands."""

from __future__ import annotations

import inspect
import itertools
from typing import Annotated, Any

import typer

from freqrobust.core.text import print_error

EXIT_INTERNAL, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
#: Longest error line without ``--debug``. Ours list what exists; longer ones are texts of others.
LONGEST_ERROR = 1200


def fail(message: str, longest: int | None = LONGEST_ERROR) -> None:
    """One line on standard error."""
    print_error(message, longest)


EVAL_HELP = (
    "Measure a model, undefended and with each defense, under attacks and frequency filters.\n\n"
    "Without --model: the embedded demo, a small CNN trained on the spot on handwritten digits.\n\n"
    "With --defense NAME --help: the parameters of that defense as well."
)


def given_defenses(arguments: list[str]) -> list[str]:
    """The values of ``--defense X`` and ``--defense=X``."""
    found = [b for a, b in itertools.pairwise(arguments) if a == "--defense" and not b.startswith("--")]
    return found + [a.partition("=")[2] for a in arguments if a.startswith("--defense=")]


def _parts(chain: str) -> list[str]:
    """The specs that a defense's spec is composed of."""
    from freqrobust.plugins.specs import UNDEFENDED_NAMES, split_chain

    return [part.strip() for part in split_chain(chain) if part.strip() not in UNDEFENDED_NAMES]


def plugin_fields(kind: str, specs: list[str]) -> dict[str, Any]:
    """``{field: (names of its owners, class)}`` of all given plugins; with several owners it is ambiguous."""
    from freqrobust.harness.analysis import analyses
    from freqrobust.plugins.registry import defenses

    fields: dict[str, Any] = {}
    for spec in specs:
        name, cls, _, _ = (analyses if kind == "analysis" else defenses).find(spec)
        for key in cls.model_fields:
            owners = [*fields[key][0], name] if key in fields else [name]
            fields[key] = (owners, cls)
    return fields


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def spell_out_flags(arguments: list[str], fields: dict[str, Any]) -> list[str]:
    """``--rescale`` alone becomes ``--rescale true`` for fields that are true or false."""
    booleans = {_flag(key) for key, (_, cls) in fields.items() if cls.model_fields[key].annotation is bool}
    result: list[str] = []
    for i, argument in enumerate(arguments):
        result.append(argument)
        last = i + 1 == len(arguments)
        if argument in booleans and (last or arguments[i + 1].startswith("-")):
            result.append("true")
    return result


def eval_command(fields: dict[str, Any]) -> Any:
    """The function behind ``eval``: its fixed parameters, and one option per field of the given defenses."""
    signature = inspect.signature(eval_, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.name != "options"]

    def command(**values: Any) -> int:
        given = {key: values.pop(f"option_{key}") for key in fields}
        given = {key: value for key, value in given.items() if value}
        for key in given:
            owners = fields[key][0]
            if len(owners) > 1:
                from freqrobust.core.errors import SpecError

                raise SpecError(
                    f"{_flag(key)}: several of the given defenses have it ({', '.join(owners)}); "
                    f"write it into the spec, for example --defense {owners[0]}:{key}={given[key][0]}"
                )
        try:
            return eval_(**values, options=given)
        except KeyboardInterrupt:  # the command line library would end without a word
            fail("interrupted before the first cell; run the same command again")
            return EXIT_INTERRUPTED

    parameters = [*fixed, *field_parameters(fields)]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def field_parameters(fields: dict[str, Any]) -> list[inspect.Parameter]:
    """One option per field of the given plugins."""
    if not fields:
        return []
    from freqrobust.plugins.help import field_help

    return [
        inspect.Parameter(
            f"option_{key}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None,
                typer.Option(
                    _flag(key),
                    help=escape(field_help(cls, key)),
                    rich_help_panel=f"Parameters of {owners[-1]}",
                    show_default=False,
                    metavar="VALUE",
                ),
            ],
        )
        for key, (owners, cls) in fields.items()
    ]


def escape(text: str) -> str:
    """Keep square brackets out of the hands of rich's markup."""
    return text.replace("[", "\\[")


MODEL, DATA, RUN, GATE, OUTPUT = "Model", "Data", "What to run", "Gate", "Output"


def eval_(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A checkpoint (.pt .pth .th .ckpt .safetensors .pt2), torchvision:NAME, timm:NAME, "
            "robustbench:NAME, module:callable or file.py:callable. May be repeated.",
            rich_help_panel=MODEL,
            metavar="SPEC",
        ),
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="Architecture of a state dict: auto (the default), a name, file.py:factory or module:factory. "
            "Once for all models, or once for each.",
            rich_help_panel=MODEL,
            metavar="ARCH",
        ),
    ] = None,
    normalize: Annotated[
        list[str] | None,
        typer.Option(
            help="auto (the default), none, a preset (imagenet, cifar10, half, ...) or m1,m2,m3/s1,s2,s3. "
            "Once for all models, or once for each.",
            rich_help_panel=MODEL,
            metavar="NORM",
        ),
    ] = None,
    trust_checkpoint: Annotated[
        bool,
        typer.Option(
            "--trust-checkpoint", metavar="", help="Load checkpoints that can run code.", rich_help_panel=MODEL
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10, cifar100, mnist, fashion_mnist, svhn, imagenet, a file .npz, folder:DIR, "
            "cifar10c:DIR,name=fog,severity=3 (cifar100c, imagenetc), robustbench:cifar10c, module:callable or file.py:callable.",
            rich_help_panel=DATA,
            metavar="SPEC",
        ),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Where torchvision datasets lie.", rich_help_panel=DATA, metavar="DIR")
    ] = None,
    split: Annotated[str, typer.Option(help="test or train.", rich_help_panel=DATA)] = "test",
    limit: Annotated[
        int | None, typer.Option(help="A class-stratified subset of N samples.", rich_help_panel=DATA, metavar="N")
    ] = None,
    first: Annotated[int | None, typer.Option(help="The first N samples.", rich_help_panel=DATA, metavar="N")] = None,
    train_data: Annotated[
        str | None, typer.Option(help="Training data for defenses that learn.", rich_help_panel=DATA, metavar="SPEC")
    ] = None,
    defense: Annotated[
        list[str] | None,
        typer.Option(
            help="A defense, such as smooth or smooth:rho=0.5+lowpass:radius=12. May be repeated.",
            rich_help_panel=RUN,
            metavar="SPEC",
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(
            help="An attack, such as pgd:eps=8/255,steps=20. May be repeated; replaces the suite.",
            rich_help_panel=RUN,
            metavar="SPEC",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="A named suite or a file of attack specs (default: standard).", rich_help_panel=RUN),
    ] = None,
    no_baseline: Annotated[
        bool, typer.Option("--no-baseline", metavar="", help="Leave the undefended model out.", rich_help_panel=RUN)
    ] = False,
    diagnose: Annotated[
        bool,
        typer.Option(
            "--diagnose",
            help="Run other attacks to see whether the robust accuracies are to be believed; without it only quick checks.",
        ),
    ] = False,
    no_oblivious: Annotated[
        bool,
        typer.Option(
            "--no-oblivious",
            metavar="",
            help="Do not show defended models the examples made on the undefended one.",
            rich_help_panel=RUN,
        ),
    ] = False,
    batch_size: Annotated[
        str, typer.Option(help="Images per batch, or auto. Results do not depend on it.", rich_help_panel=RUN)
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=RUN)] = "auto",
    precision: Annotated[
        str, typer.Option(help="fp32 or bf16, for the attacks' passes.", rich_help_panel=RUN)
    ] = "fp32",
    seed: Annotated[int, typer.Option(help="All randomness is keyed by it.", rich_help_panel=RUN)] = 0,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with code 1 where an accuracy is lower: pgd>=0.45, smooth/worst>=0.3. May be repeated.",
            rich_help_panel=GATE,
            metavar="CELL>=SHARE",
        ),
    ] = None,
    confident: Annotated[
        bool,
        typer.Option(
            "--confident", metavar="", help="Judge on the low end of the 95 % interval.", rich_help_panel=GATE
        ),
    ] = False,
    mce_reference: Annotated[
        str | None,
        typer.Option(
            help="The report of the model that corruption errors are divided by, or alexnet.",
            rich_help_panel=RUN,
            metavar="REPORT",
        ),
    ] = None,
    run_dir: Annotated[
        str | None,
        typer.Option(
            help="Journal and report; default: a folder under runs/, named by content.",
            rich_help_panel=OUTPUT,
            metavar="DIR",
        ),
    ] = None,
    json: Annotated[
        str | None, typer.Option(help="Write the JSON report here as well.", rich_help_panel=OUTPUT, metavar="FILE")
    ] = None,
    report: Annotated[
        list[str] | None,
        typer.Option(
            help="Write a report of another form as well, such as out.html, out.md, junit=out.xml or markdown=-; "
            "- is standard output. May be repeated.",
            rich_help_panel=OUTPUT,
            metavar="[REPORT=]FILE",
        ),
    ] = None,
    save_model: Annotated[
        str | None,
        typer.Option(help="Save the defended model, with what --model needs.", rich_help_panel=OUTPUT, metavar="FILE"),
    ] = None,
    save_adversarial: Annotated[
        str | None,
        typer.Option(
            help="Save the adversarial examples of every sample here, one .npz a cell.",
            rich_help_panel=OUTPUT,
            metavar="DIR",
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", metavar="", help="Print only errors, and what failed.", rich_help_panel=OUTPUT)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Show tracebacks.", rich_help_panel=OUTPUT)
    ] = False,
    options: Any = None,
) -> int:
    """Run one evaluation; the exit code."""
    from freqrobust.cli.eval import Request, execute
    from freqrobust.gate.thresholds import Gate, parse_threshold

    if confident and not fail_under:
        from freqrobust.core.errors import SpecError

        raise SpecError("--confident needs a --fail-under: there is nothing to judge")
    gate = Gate(map(parse_threshold, fail_under), confident=confident) if fail_under else None
    return execute(
        Request(
            models=model or [],
            arch=arch or [],
            normalize=normalize or [],
            trust=trust_checkpoint,
            data=data,
            data_dir=data_dir,
            split=split,
            limit=limit,
            first=first,
            train_data=train_data,
            defenses=defense or [],
            options=options or {},
            attacks=attack or None,
            suite=suite,
            baseline=not no_baseline,
            oblivious=not no_oblivious,
            diagnose=diagnose,
            batch_size=batch_size,
            device=device,
            precision=precision,
            seed=seed,
            mce_reference=mce_reference,
            run_dir=run_dir,
            json=json,
            reports=report or [],
            save_model=save_model,
            save_adversarial=save_adversarial,
            quiet=quiet,
            gate=gate,
        )
    )
