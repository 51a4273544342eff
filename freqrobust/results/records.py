"""The records that every report is made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from freqrobust.numerics.threat import Norm
from freqrobust.plugins.specs import UNDEFENDED

SCHEMA_VERSION: Literal[2] = 2
Interval = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class NormalizeRecord(_Part):
    mean: list[float] = []
    std: list[float] = []
    source: Literal["given", "checkpoint", "architecture", "trial", "none"] = "none"
    preset: str | None = None
    scores: dict[str, float] = Field({}, description="accuracy on the trial samples, by preset")


class PublishedRecord(_Part):
    """What others report for the same model."""

    source: str
    clean: float | None = None
    autoattack: float | None = None
    corruptions: float | None = None
    threat_model: str | None = None
    eps: str | None = Field(None, description="as written by the source")


class ModelRecord(_Part):
    name: str | None = Field(None, description="as the user named it")
    spec: str
    arch: str
    sha256: str
    parameters: int
    normalize: NormalizeRecord
    published: PublishedRecord | None = Field(None, description="accuracies that the model's source reports")
    compilation: CompilationRecord | None = Field(
        None, description="whether attacks differentiated a compiled copy; null where no attack was measured"
    )


class CompilationRecord(_Part):
    """Whether attacks differentiated a compiled copy of the model."""

    mode: Literal["auto", "on", "off"] = Field(..., description="the option compile")
    compiled: bool
    reason: str = Field(..., description="why")
    seconds: float = Field(0.0, description="that compiling took; not in the seconds of the cells")


class PreprocessingRecord(_Part):
    """How images of any size became the input of the model; their normalisation is a layer of the model."""

    resize: int | list[int] | None = Field(None, description="the shorter side, or [height, width], in pixels")
    crop: list[int] | None = Field(None, description="[height, width] in pixels, at the centre")
    interpolation: str = "bilinear"
    detail: str | None = Field(None, description="what the other values do not say")
    source: str = Field(..., description="where the values come from")


class DataRecord(_Part):
    spec: str
    split: str
    n: int
    classes: int
    shape: list[int]
    sha256: str
    ids: Literal["all"] | list[int]
    class_subset: list[int] | None = Field(
        None, description="the model's classes that predictions are restricted to; label i is the i-th of them"
    )
    class_names: list[str] | None = Field(None, description="the name of each class, where they are known")
    preprocessing: PreprocessingRecord | None = Field(
        None, description="how the images were resized and cropped; null where they were used as they are"
    )


class EnvironmentRecord(_Part):
    python: str
    torch: str
    device: str
    precision: Literal["fp32", "bf16"]
    git: str | None = None


class ThreatRecord(_Part):
    norm: Norm
    eps: float


class Difference(_Part):
    against: str = UNDEFENDED
    points: float
    ci95: Interval


class Warned(_Part):
    code: str
    message: str
    model: int = 0
    defense: str | None = None
    attack: str | None = Field(None, description="spec of the attack that it is about, where it is about one")


Precision = Literal["fp32", "bf16"]
