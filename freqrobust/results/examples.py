"""Example images of a report: what an attack and the frequency filters do to a few samples."""

from __future__ import annotations

import base64
import binascii
from typing import Literal

from pydantic import Field, field_validator

from freqrobust.results.records import ThreatRecord, _Part

Kind = Literal["clean", "adversarial", "perturbation", "lfc", "hfc"]
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class ExamplePicture(_Part):
    """One image of a sample, and what the model predicts for it."""

    kind: Kind
    base64: str = Field(description="a PNG file, at most 224 pixels on a side")
    prediction: int | None = Field(None, description="the predicted class; null for a perturbation")
    name: str | None = Field(None, description="the name of the predicted class, where it is known")

    @field_validator("base64")
    @classmethod
    def _is_png(cls, text: str) -> str:
        try:
            content = base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            raise ValueError("the picture should be base64") from None
        if not content.startswith(_SIGNATURE):
            raise ValueError("the picture should be a PNG file")
        return text


class Example(_Part):
    """One sample."""

    id: int = Field(description="index in the dataset")
    label: int
    name: str | None = Field(None, description="the name of the class, where it is known")
    adversarial: bool = Field(description="whether the attack succeeded")
    pictures: list[ExamplePicture]


class ExampleSet(_Part):
    """Samples that one model classifies correctly, under one attack."""

    model: int = 0
    defense: str
    defense_spec: str
    attack_spec: str
    threat: ThreatRecord
    radius: float = Field(description="of LFC and HFC, in cycles per image")
    magnified: float = Field(description="factor by which the shown perturbations are multiplied; zero is grey")
    width: int = Field(description="of the images that were evaluated, in pixels")
    height: int
    samples: list[Example]
