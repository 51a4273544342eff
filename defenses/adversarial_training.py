"""Adversarial training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from freqrobust.core.numbers import Count, Number
from freqrobust.numerics.threat import StepNorm, check_eps
from freqrobust.plugins.base import Defense

if TYPE_CHECKING:
    from torch import nn

    from freqrobust.plugins.context import DefenseContext


class AdversarialTraining(Defense):
    """Train on PGD examples: minimise the loss at the worst point of the eps-ball.  (Madry et al. 2018, eq. 2.1)

    The trained model is cached by model, parameters, data and seed, so that it is trained only once.
    """

    trains: ClassVar[bool] = True

    eps: Number = Field(8 / 255, ge=0, description="perturbation budget of the training attack")
    norm: StepNorm = Field("linf", description="norm of the budget")
    steps: Count = Field(7, description="gradient steps of the training attack")
    step_size: Number | None = Field(None, gt=0, description="step size of the training attack; default as for pgd")
    epochs: Count = Field(10, description="passes over the training data")
    lr: float = Field(0.03, gt=0, description="peak learning rate")
    train_batch: Count = Field(128, description="images per training step")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty on the weights")
    augment: Literal["none", "flip-crop"] = Field("flip-crop", description="random flips and crops of training images")
    start: Literal["checkpoint", "scratch"] = Field("checkpoint", description="weights from which training starts")

    @model_validator(mode="after")
    def _eps_in_pixels(self) -> Any:
        check_eps(self.norm, self.eps)
        return self

    def resolved_params(self) -> dict[str, float]:
        """The parameters whose defaults depend on other parameters."""
        from freqrobust.attacks.pgd import PGD

        attack = PGD(eps=self.eps, norm=self.norm, steps=self.steps, step_size=self.step_size)
        return {"step_size": attack.resolved_params()["step_size"]}

    def apply(self, model: nn.Module, context: DefenseContext) -> nn.Module:
        import copy

        import torch

        from freqrobust.core.errors import JournalError, PluginError
        from freqrobust.core.files import identity, write_atomically
        from freqrobust.core.source_hash import source_hash
        from freqrobust.methods.madry import Madry
        from freqrobust.models.fingerprint import fingerprint
        from freqrobust.training.loop import fit
        from freqrobust.training.plan import sgd_plan

        data = context.require_train_data("madry")
        trained = copy.deepcopy(model)
        path = None
        if context.cache_dir is not None:
            parts = [fingerprint(model), self.model_dump(mode="json"), data.sha256, context.seed, context.device.type]
            key = identity([*parts, source_hash(type(self)), torch.__version__])
            path = context.cache_dir / "models" / f"madry-{key}.pt"
            if path.exists():
                try:
                    trained.load_state_dict(torch.load(path, map_location=context.device, weights_only=True))
                except Exception:  # a damaged file is replaced
                    context.progress.say(f"madry: {path} is damaged; training again")
                else:
                    context.progress.say(f"madry: trained model loaded from the cache ({path})")
                    return trained
        if self.start == "scratch":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(context.seed)
                for module in trained.modules():
                    reset = getattr(module, "reset_parameters", None)
                    if callable(reset):
                        reset()
                    elif any(True for _ in module.parameters(recurse=False)):
                        raise PluginError(
                            f"madry: start=scratch cannot reset the parameters of {type(module).__name__}"
                        )
        plan = sgd_plan(
            self.epochs,
            self.lr,
            weight_decay=self.weight_decay,
            batch_size=self.train_batch,
            augment=self.augment,
            method=Madry(eps=self.eps, norm=self.norm, steps=self.steps, step_size=self.step_size),
        )
        fit(
            trained,
            data,
            plan,
            device=context.device,
            seed=context.seed,
            progress=context.progress,
            label="madry",
        )
        if path is not None:
            import io

            buffer = io.BytesIO()
            torch.save(trained.state_dict(), buffer)
            try:
                write_atomically(path, buffer.getvalue())
            except JournalError as error:
                context.progress.say(f"warning: {error}")
        return trained
