"""A tiny training with Lightning. Apart from the tests, as importing Lightning takes seconds."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

with warnings.catch_warnings():  # Lightning's own imports use what other packages call outdated
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint


class Net(pl.LightningModule):
    """Random numbers in every step: dropout, shuffling, noise of Python and NumPy; and statistics of batches."""

    def __init__(self, validated: bool = True) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 3)
        )
        self.frozen = nn.BatchNorm2d(1).eval()
        self.seen: list[bool] = []
        if validated:
            self.validation_step = self._validate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        random.random(), np.random.rand()  # a training with one call more would differ
        return self.net(self.frozen(x)) + 0 * torch.rand(1)

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        images, labels = batch
        self.seen.append(self.net.training and not self.frozen.training)
        return nn.functional.cross_entropy(self(images), labels) * (1 + 0.1 * random.random() + 0.1 * np.random.rand())

    def _validate(self, batch: Any, number: int) -> None:
        images, labels = batch
        self.log("val_loss", nn.functional.cross_entropy(self(images), labels))

    def on_train_epoch_start(self) -> None:
        self.frozen.eval()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train(
    data: tuple[torch.Tensor, torch.Tensor],
    callbacks: list[Any],
    epochs: int = 2,
    validated: bool = True,
    logger: Any = False,
    **more: Any,
) -> tuple[Any, Net]:
    """The trainer and the network after a training on the data, with or without validation on it."""
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(0)
    net = Net(validated)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=8, shuffle=True)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=logger,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
        **{"num_sanity_val_steps": 0, **more},
    )
    loaders = {"val_dataloaders": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data), batch_size=8)}
    trainer.fit(net, loader, **(loaders if validated else {}))
    return trainer, net
