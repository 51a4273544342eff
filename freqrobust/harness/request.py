"""What the options of an evaluation ask for: its plugins, and then the models and the data that they are run on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freqrobust.core.config import EvalConfig
from freqrobust.core.options import Options
from freqrobust.core.progress import Progress
from freqrobust.data.dataset import ImageData
from freqrobust.harness.inputs import needed, open_inputs, open_train_data, with_demo
from freqrobust.plugins.base import Attack, Defense
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.selection import (
    check_certificates,
    listed,
    parse_attacks,
    parse_certificates,
    parse_chains,
    parse_criterion,
    parse_defenses,
    with_undefended,
)
from freqrobust.plugins.specs import DefenseChain, PluginSpec
from freqrobust.plugins.suites import resolve


@dataclass(frozen=True)
class Request:
    """The plugins of an evaluation, before anything is loaded.

    Attributes:
        config: the options.
        defenses: the chains that are named.
        attacks: the attacks that are named; None stands for a suite, which depends on the size of the images.
        certificates: the certificates.
    """

    config: EvalConfig
    defenses: list[DefenseChain]
    attacks: list[PluginSpec[Attack]] | None
    certificates: list[PluginSpec[Certificate]]

    @classmethod
    def of(cls, config: EvalConfig, parameters: Mapping[str, Sequence[str]] | None = None) -> Request:
        """The plugins that the options name.

        Args:
            config: the options.
            parameters: parameters of defenses that are given apart from their specs.

        Raises:
            SpecError: a spec is wrong, or a certificate does not fit the evaluation.
        """
        defenses = parse_defenses(listed(config.defenses, "defenses", Defense), parameters)
        attacks = parse_attacks(config.attacks) if config.attacks is not None else None
        certificates = parse_certificates(config.certify)
        if certificates:
            chains = with_undefended(defenses, config.undefended)
            check_certificates(certificates, chains, parse_criterion(config.criterion))
        return cls(config, defenses, attacks, certificates)

    def load(self, device: torch.device, cache_dir: Path | None, progress: Progress) -> LoadedRequest:
        """With the models and the data.

        Args:
            device: of the models.
            cache_dir: directory for networks that are trained or downloaded.
            progress: is told what was loaded.

        Raises:
            FreqRobustError: a model or the data cannot be loaded, they do not fit together, or something is missing.
        """
        options = with_demo(self.config, progress)
        chains = parse_chains(self.defenses, options.undefended, options.train_data is not None)
        models, images = open_inputs(
            options.model, options.data, options, device, cache_dir=cache_dir, progress=progress
        )
        data = needed(images)
        training = open_train_data(options, data)
        attacks = self.attacks
        if attacks is None:
            attacks = parse_attacks(resolve("standard" if options.suite is None else options.suite, data.shape))
        return LoadedRequest(
            options, models, data, training, self.defenses, chains, attacks, self.certificates, device, cache_dir
        )


@dataclass(frozen=True)
class LoadedRequest:
    """Everything that an evaluation is made of.

    Attributes:
        options: the options, with the demo where no model is named.
        models: the models.
        data: the samples.
        training: the training data, where there is any.
        defenses: the chains that are named.
        chains: everything that is evaluated, the undefended model first.
        attacks: the attacks; empty where only the clean accuracy is measured.
        certificates: the certificates.
        device: of the models.
        cache_dir: directory for networks that are trained or downloaded.
    """

    options: Any
    models: list[nn.Module]
    data: ImageData
    training: ImageData | None
    defenses: list[DefenseChain]
    chains: list[DefenseChain]
    attacks: list[PluginSpec[Attack]]
    certificates: list[PluginSpec[Certificate]]
    device: torch.device
    cache_dir: Path | None

    def settings(self, cls: type[Options] = EvalConfig, **other: Any) -> dict[str, Any]:
        """The options of :func:`freqrobust.evaluate`, or of another function, for these models and data.

        Args:
            cls: the class of the options.
            other: other values for some of them.
        """
        loaded: dict[str, Any] = {
            "attacks": self.attacks or ["clean"],
            "suite": None,
            "certify": self.certificates or None,
            "defenses": self.defenses,
            "train_data": self.training,
            "device": self.device,
            "cache_dir": self.cache_dir,
            **other,
        }
        found: dict[str, Any] = self.options.settings(
            cls, **{name: value for name, value in loaded.items() if name in cls.model_fields}
        )
        return found
