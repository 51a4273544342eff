"""What the processes that share a run directory have in common: they measure the same, with the same code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from freqrobust.core.errors import SharingError
from freqrobust.core.files import identity, reason, write_atomically
from freqrobust.core.text import one_line
from freqrobust.core.version import __version__
from freqrobust.data.dataset import ImageData
from freqrobust.harness.certify import certificate_code
from freqrobust.harness.opening import Settings
from freqrobust.harness.provenance import environment_record
from freqrobust.harness.run import engine_hash
from freqrobust.models.fingerprint import fingerprint
from freqrobust.plugins.base import Attack
from freqrobust.plugins.certificate import Certificate
from freqrobust.plugins.criterion import Criterion
from freqrobust.plugins.specs import DefenseChain, PluginSpec

#: The file of a run directory that names what is measured there, and the directory with a file for each shard.
PLAN, SHARDS = "plan.json", "shards"
#: What messages call the kind of device.
DEVICE = "kind of device"
#: What messages call the hash of the code that measures, and how the hash of a plugin begins.
CODE, _PART = "code of freqrobust", " (parameters and code "


@dataclass(frozen=True)
class SharedPlan:
    """What is measured, and in how many shards.

    Attributes:
        identity: all that the results depend on, by what a message calls it: JSON values, the same in all processes.
        config: the options, from which the models and the data can be loaded again.
        folder: the directory that relative paths in them are relative to.
        environment: where this process measures, as a report says it.
        shards: how many processes do a fixed share each; None where there are no shards.
    """

    identity: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    shards: int | None = None

    def of_shards(self, count: int) -> SharedPlan:
        """The same plan, with so many shards."""
        return replace(self, shards=count)

    @property
    def kind(self) -> str:
        """The kind of device."""
        return str(self.identity.get(DEVICE))

    def on(self, kind: str) -> SharedPlan:
        """The same plan, on another kind of device."""
        return replace(self, identity={**self.identity, DEVICE: kind})

    def to_json(self) -> dict[str, Any]:
        """A JSON value, of which :meth:`from_json` is the inverse."""
        return asdict(self)

    def differences(self, other: SharedPlan) -> list[str]:
        """``seed 1 instead of 0``: in what this plan differs from another one."""
        found = []
        same_code = self.identity.get(CODE) == other.identity.get(CODE)
        for name in dict.fromkeys([*self.identity, *other.identity]):
            now, before = self.identity.get(name), other.identity.get(name)
            if not same_code:  # that of the plugins imports it, and differs as well
                now, before = _without_hashes(now), _without_hashes(before)
            if now != before:
                found.append(f"{name} {_pair(now, before)}")
        if self.shards is not None and other.shards is not None and self.shards != other.shards:
            found.append(f"{self.shards} shards instead of {other.shards}")
        return found

    def check(self, other: SharedPlan, what: str, path: Path) -> None:
        """Refuse to take part where something else is measured.

        Args:
            other: the plan that this one should fit.
            what: what does not fit, for the message.
            path: where the other plan is.

        Raises:
            SharingError: one line that says what differs.
        """
        different = self.differences(other)
        if different:
            raise SharingError(
                f"{what} does not fit {path}: {'; '.join(different)}; all processes that share a run directory need the same "
                "options, data and version"
            )

    def write(self, run_dir: Path) -> None:
        """Write it to a run directory, atomically.

        Raises:
            JournalError: it cannot be written.
        """
        write_atomically(run_dir / PLAN, json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def from_json(cls, content: Any, path: Path) -> SharedPlan:
        """The plan in a JSON value.

        Raises:
            SharingError: it is none.
        """
        try:
            plan = cls(**{name: content[name] for name in cls.__dataclass_fields__})
            fits = all(isinstance(part, dict) for part in (plan.identity, plan.config, plan.environment))
            if fits and isinstance(plan.folder, str) and isinstance(plan.shards, int | None):
                return plan
        except (KeyError, TypeError):
            pass
        raise SharingError(f"{path} is not the plan of shards; delete it, and start all shards again")

    @classmethod
    def read(cls, run_dir: Path) -> SharedPlan | None:
        """The plan in a run directory; None where there is none.

        Raises:
            SharingError: it cannot be read.
        """
        path = run_dir / PLAN
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            why = reason(error) if isinstance(error, OSError) else "it is no JSON"
            raise SharingError(f"cannot read {path}: {why}") from error
        return cls.from_json(content, path)


def plan_of_shards(run_dir: Path | None) -> SharedPlan:
    """The plan in a run directory of shards.

    Raises:
        SharingError: there is none, or it cannot be read.
    """
    known = SharedPlan.read(run_dir) if run_dir is not None else None
    if known is None or known.shards is None:
        raise SharingError(
            f"{run_dir} has no {PLAN}: no shard was started there (freqrobust eval --shard K/N --run-dir DIR ...)"
        )
    return known


def shared_identity(
    *,
    networks: Sequence[nn.Module],
    data: ImageData,
    training: ImageData | None,
    chains: Sequence[DefenseChain],
    attacks: Sequence[PluginSpec[Attack]],
    certificates: Sequence[PluginSpec[Certificate]],
    criterion: PluginSpec[Criterion],
    settings: Settings,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """All that the results of a run depend on, by what a message calls it.

    Args:
        networks: the models.
        data: the samples.
        training: what training-time defenses learn from.
        chains: the defenses.
        attacks: the attacks.
        certificates: the certificates.
        criterion: what counts as adversarial.
        settings: device, precision and batch size.
        options: others, such as the seed, by name.

    Raises:
        SharingError: the batch size would depend on the machine, and the results on the batch size.
    """
    dependent = [one for one in attacks if not one.plugin.batch_invariant]
    if dependent and settings.batch_size == "auto" and settings.device.type == "cuda":
        raise SharingError(
            f"the result of {dependent[0].spec} depends on the batch size, and --batch-size auto depends on the memory of "
            "the GPU; give --batch-size N, so that it is the same in all processes"
        )
    learns = any(defense.needs_train_data for chain in chains for defense in chain.defenses)
    return {
        "freqrobust": __version__,
        CODE: engine_hash(),
        "torch": torch.__version__,
        "models": [fingerprint(network) for network in networks],
        "data": f"{data.sha256} ({len(data)} samples)",
        "training data": training.sha256 if training is not None and learns else None,
        "defenses": [" + ".join(map(_part, chain.parts)) or chain.spec for chain in chains],
        "attacks": [_part(one) for one in attacks],
        "certificates": [_part(one) for one in certificates],
        "code of certificates": certificate_code() if certificates else None,
        "criterion": _part(criterion),
        "precision": settings.precision,
        DEVICE: settings.device.type,
        "batch size": settings.batch_size if dependent else None,
        **options,
    }


def _part(plugin_spec: PluginSpec[Any]) -> str:
    """A plugin, with a hash of all of its parameters and its code."""
    content = identity([plugin_spec.name, plugin_spec.params, plugin_spec.code])
    return f"{plugin_spec.spec}{_PART}{content[:8]})"


def _without_hashes(value: Any) -> Any:
    """An entry of the identity without the hashes of plugins."""
    if isinstance(value, list):
        return [_without_hashes(one) for one in value]
    return re.sub(rf"{re.escape(_PART)}\w+\)", "", value) if isinstance(value, str) else value


def environment(settings: Settings) -> dict[str, Any]:
    """Where this process measures, as a report says it."""
    return environment_record(settings.device, settings.precision).model_dump(mode="json")


def joined_environment(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where several processes measured, as one record: values that differ one after the other."""
    joined: dict[str, Any] = {}
    for name in environments[0]:
        values = list(dict.fromkeys(one.get(name) for one in environments))
        joined[name] = values[0] if len(values) == 1 else " and ".join(str(value) for value in values if value)
    return joined


def _pair(now: Any, before: Any) -> str:
    """Two values in a message; of lists, the items that only one of them has."""
    if isinstance(now, list) and isinstance(before, list) and sorted(map(str, now)) != sorted(map(str, before)):
        now, before = [one for one in now if one not in before], [one for one in before if one not in now]
    return f"{_shown(now)} instead of {_shown(before)}"


def _shown(value: Any) -> str:
    """A value in a message, with hashes shortened."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    text = one_line("none" if value is None else value)
    first, _, rest = text.partition(" ")
    is_hash = re.fullmatch("[0-9a-f]{16,}", first) is not None
    return f"{first[:12]} {rest}".rstrip() if is_hash else text
