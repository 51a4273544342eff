"""What the experiments of Wang et al. have in common: the conventions of the paper, and those of its public code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from freqrobust.experiments.experiment import Experiment

Rescale = Literal["none", "max"]
Statistics = Literal["running", "batch"]


class WangExperiment(Experiment):
    """An experiment of Wang et al. 2020, with the conventions of the paper or of the authors' code."""

    rescale: Rescale = Field(
        "none",
        description="max: divide each LFC and HFC image by its largest value, in training and evaluation, as in the "
        "authors' code",
    )
    bn: Statistics = Field(
        "running",
        description="batch: evaluate with the batch norm statistics of each test batch, as in the authors' code; a "
        "prediction then depends on the other images of the batch",
    )
    arch: str = Field(
        "auto", description="architecture; auto: small_cnn at digits, resnet8 at cpu, cifar_resnet18 at paper"
    )
