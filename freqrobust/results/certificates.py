"""What a certificate proved for one defense: a lower bound, beside the upper bounds that attacks give."""

from __future__ import annotations

import base64
import json
import operator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, computed_field, model_validator

from freqrobust.plugins.certificate import Guarantee
from freqrobust.results.cells import Cell, WorstCase, _Counted
from freqrobust.results.records import ThreatRecord
from freqrobust.results.value import Value, concatenated, first

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CertificateRecord(_Counted):
    """One certificate on one defense: the samples that it certifies are those counted as correct.

    The share of them is a lower bound of the accuracy of the certified object within the threat. Of a deterministic
    certificate that object is the defended model, so that ``certified <= true <= attacked`` for every attack; of a
    statistical one it is what ``statement`` says.
    """

    certificate: str
    certificate_spec: str
    certificate_params: dict[str, Any]
    threat: ThreatRecord | None = Field(None, description="null for statements that are not about a ball")
    guarantee: Guarantee
    statement: str = Field(description="what exactly is certified")
    alpha: float | None = Field(
        None, description="of a statistical certificate: the probability, per sample, that its statement is wrong"
    )
    radii: str | None = Field(
        None,
        description="base64 of little-endian float32 in sample order: the largest certified budget, 0 where nothing is "
        "certified; null where the certificate decides for one budget only, and in a JSON file where they are those of "
        "the record that `shared_with` names",
    )
    abstained: Annotated[int | None, Value("samples on which it abstained", operator.add)] = Field(
        None, description="samples that a statistical certificate could not decide; null where it always decides"
    )
    contradicted: int = Field(
        0,
        description="of a statistical certificate: certified samples for which an attack on the defended model found an "
        "adversarial example within the threat; the certified object is another",
    )
    shared_with: Annotated[str | None, Value("measured together with", first, "note")] = Field(
        None, description="spec of the certificate whose measurement this is, at another eps of the same sweep"
    )
    notes: Annotated[list[str], Value("", concatenated, "note")] = Field(
        [], description="what a reader has to know about it"
    )
    status: Literal["ok", "failed"] = "ok"
    error: str | None = None
    seconds: Annotated[float, Value("seconds", operator.add, "column")] = 0.0
    forwards: Annotated[int, Value("forward passes", operator.add)] = Field(0, description="forward passes, in images")

    @model_validator(mode="before")
    @classmethod
    def _drop_certified(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "certified" not in values:
            return values
        if values["certified"] != values.get("correct"):
            raise ValueError(f"certified {values['certified']!r} contradicts correct {values.get('correct')!r}")
        return {key: value for key, value in values.items() if key != "certified"}

    @model_validator(mode="after")
    def _consistent(self) -> Any:
        if self.status == "ok" and self.outcomes is None:
            raise ValueError("a certificate that did not fail should have outcomes")
        if self.abstained is not None and not 0 <= self.abstained <= self.n - self.correct:
            raise ValueError(
                f"abstained {self.abstained} contradicts {self.correct} certified samples of {self.n}: it should be at "
                f"most {self.n - self.correct}"
            )
        radii = self.certified_radii()
        if radii is not None:
            if len(radii) != self.n:
                raise ValueError(f"expected the radii of {self.n} samples, but got {len(radii)}")
            least = np.float32(self.threat.eps) if self.threat is not None else np.float32(0)
            if (radii[self.right()] < least).any():
                raise ValueError(f"certified samples should have a radius of at least {least:g}, but some have less")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def certified(self) -> int:
        """The number of certified samples."""
        return self.correct

    def certified_radii(self) -> NDArray[np.float32] | None:
        """The largest certified budget of every sample, ``(n,)``; None where there is none."""
        return decode_radii(self.radii) if self.radii is not None else None


#: Everything of a report that is a number of samples out of all.
Counted: TypeAlias = Cell | WorstCase | CertificateRecord


def with_shared_radii(records: list[Any]) -> list[Any]:
    """Records of a JSON file in which each one has its radii, also where the file has them once for a sweep over eps."""
    known = {_owner(one, one["certificate_spec"]): one.get("radii") for one in records if _measured(one)}
    return [
        {**one, "radii": known.get(_owner(one, one["shared_with"]))}
        if isinstance(one, dict) and one.get("shared_with") and one.get("radii") is None
        else one
        for one in records
    ]


def without_shared_radii(records: list[Any]) -> list[Any]:
    """The inverse of :func:`with_shared_radii`, for radii that are those of the record that ``shared_with`` names."""
    known = {_owner(one, one["certificate_spec"]): one.get("radii") for one in records if _measured(one)}
    return [
        {**one, "radii": None}
        if one["shared_with"] is not None and known.get(_owner(one, one["shared_with"])) == one["radii"]
        else one
        for one in records
    ]


def _measured(record: Any) -> bool:
    """Whether a record, of JSON, is the one that others of its sweep share the measurement of."""
    return isinstance(record, dict) and "certificate_spec" in record and not record.get("shared_with")


def _owner(record: dict[str, Any], spec: str) -> str:
    about = [record.get("model", 0), record.get("defense_spec"), record.get("defense_params"), spec]
    return json.dumps(about, sort_keys=True, default=str)


def encode_radii(radii: NDArray[np.float32]) -> str:
    """Radii as text: base64 of little-endian float32."""
    return base64.b64encode(np.asarray(radii, dtype="<f4").tobytes()).decode()


def decode_radii(text: str) -> NDArray[np.float32]:
    """The inverse of :func:`encode_radii`.

    Raises:
        ValueError: some are negative or not a number.
    """
    radii = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").copy()
    if np.isnan(radii).any() or (radii < 0).any():
        raise ValueError("radii should be 0 or more, but some are negative or not a number")
    return radii
