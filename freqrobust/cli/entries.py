"""The commands, in the order of the help: their texts, and where their functions are.

This module imports nothing of freqrobust, so that the list of the commands comes at once.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One command.

    Attributes:
        panel: the heading under which the list of the commands shows it.
        help: its help text; paragraphs are separated by an empty line, and the first one is shown in the list.
        function: the module in ``freqrobust.cli`` and the function, whose parameters are the options of the command; None
            for a command of ``freqrobust.core.commands``, whose module has its name and a function ``execute``.
        interrupted: what such a command prints when the user interrupts it.
        several: whether ``torchrun`` may start several processes of it; of the others each would do all of the work, and
            write the same files.
    """

    panel: str
    help: str
    function: tuple[str, str] | None = None
    interrupted: str = "interrupted"
    several: bool = False


MEASURE, GATE, TRAIN, LOOK_UP = "Measure", "Gate", "Train and reproduce", "Reports and help"
EXTEND = "Extend"

ENTRIES = {
    "eval": Entry(
        MEASURE,
        "Measure the accuracy of a model, undefended and with defenses, under attacks and frequency filters.\n\n"
        "Without --model, a small CNN is trained on handwritten digits as a demonstration.\n\n"
        "With --defense NAME --help, the help also shows the parameters of that defense.\n\n"
        "With several processes: torchrun --nproc-per-node 2 -m freqrobust eval ..., or --shard K/N in each of them and then "
        "'freqrobust merge'.",
        interrupted="interrupted before the first cell; run the same command again",
        several=True,
    ),
    "analyze": Entry(
        MEASURE,
        "Run one analysis of one or more models: Fourier heat map, LFC/HFC misalignment, spectra and others "
        "(see 'freqrobust list analyses').\n\n"
        "Several models and defenses are shown side by side on one scale.\n\n"
        "With NAME --help, the help also shows the parameters of that analysis.",
        interrupted="interrupted; nothing was written",
    ),
    "verify": Entry(
        MEASURE,
        "Evaluate saved adversarial examples again, on the same or on another model, also after rounding to 8 bits.\n\n"
        "With --data, the clean images, the perturbation budgets are checked as well.",
        interrupted="interrupted; nothing was written",
    ),
    "rerun": Entry(
        MEASURE,
        "Measure a report again with the options that it contains, and compare the numbers.\n\n"
        "The model and the data must be the same. Exit code 0: identical, 1: some numbers differ.",
        interrupted="interrupted; run the same command again",
        several=True,  # a training
    ),
    "merge": Entry(
        MEASURE,
        "Make the report of an evaluation that was measured in shards: freqrobust eval --shard K/N --run-dir DIR.\n\n"
        "No cell is measured; checks of the robust accuracies that are missing are made. The exit codes are those of eval.",
        interrupted="interrupted; run the same command again",
    ),
    "init": Entry(
        GATE,
        "Write a commented freqrobust.toml and a CI workflow that uses it. Existing files are never overwritten.",
        ("gate", "init"),
    ),
    "check": Entry(
        GATE,
        "Run the evaluation that freqrobust.toml describes, and compare it with the thresholds and with the baseline.\n\n"
        "The file is searched for in the current directory and in those above it; 'freqrobust init' writes one. Exit code "
        "0: passed, 1: failed.",
        interrupted="interrupted; run the same command again",
        several=True,
    ),
    "compare": Entry(
        GATE,
        "Compare two reports on the same samples, and find regressions: accuracies that dropped significantly and by more "
        "than is allowed.\n\n"
        "Exit code 0: no regression, 1: a regression, 2: the reports cannot be compared.",
        ("gate", "compare"),
    ),
    "train": Entry(
        TRAIN,
        "Train a network while measuring what it has learnt: accuracies under attacks and frequency filters, on training "
        "and on held-out images.\n\n"
        "The same command resumes an interrupted training, and shows the result of a finished one.\n\n"
        "With several processes: torchrun --nproc-per-node 2 -m freqrobust train ...",
        interrupted="interrupted before the first epoch; run the same command again",
        several=True,
    ),
    "reproduce": Entry(
        TRAIN,
        "Run a published experiment at a chosen scale, and say of each trend that its source states whether it is "
        "reproduced.\n\n"
        "--list shows the experiments; the name all runs all of them.",
        interrupted="interrupted; finished trainings are kept, run the same command again",
    ),
    "report": Entry(
        LOOK_UP,
        "Show the results of earlier runs in any format, without measuring anything. Several runs are compared.\n\n"
        "Formats: table (the default), html, markdown, junit, csv, latex, json, and those of other packages "
        "(see 'freqrobust list reports').",
        ("report", "report"),
    ),
    "new": Entry(
        EXTEND,
        "Write an installable package with a defense, an attack, an analysis or a report of your own, and its test.\n\n"
        "The plugin works as it is: install the package, run its tests, and change the class.",
        ("new", "new"),
    ),
    "leaderboard": Entry(
        LOOK_UP,
        "Write a static site of many reports: a leaderboard for each dataset, curves, and a page per report.\n\n"
        "The site needs no network and no server. The same command updates it.",
        ("leaderboard", "leaderboard"),
    ),
    "list": Entry(
        LOOK_UP,
        "List the plugins of all kinds with their parameters, the recipes, suites, models, architectures and datasets.\n\n"
        "With a name, everything about one of them: freqrobust list attacks pgd.",
        ("listing", "list_"),
    ),
    "explain": Entry(
        LOOK_UP,
        "Explain a warning, a verdict, a check, a status, an exit code or a term: what it means, what to do, and the paper.\n\n"
        "Without CODE, all codes are listed. With a JSON report, its codes are explained.",
        ("explain", "explain"),
    ),
    "runs": Entry(
        LOOK_UP,
        "List the runs in runs/ with model, data, status and worst case; show their size, or delete old ones.\n\n"
        "freqrobust runs prune --older-than 30d deletes only what freqrobust wrote, and asks before.",
        ("storage", "runs"),
    ),
    "cache": Entry(
        LOOK_UP,
        "List the trained models and decoded images that are kept, show their size, or delete old ones.\n\n"
        "The directory is $FREQROBUST_CACHE, or freqrobust in the user's cache folder.",
        ("storage", "cache"),
    ),
}
