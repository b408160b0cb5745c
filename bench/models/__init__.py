"""Models: encoders, the three task heads, the handles that plugins hold, and the trainer."""

from __future__ import annotations

from bench.models.encoders import create
from bench.models.files import load
from bench.models.handles import BlackBox, Tokens, WhiteBox
from bench.models.network import CodeNetwork
from bench.models.settings import LoraSettings, ModelSettings, TrainingSettings
from bench.models.training import Objective, Trainer

__all__ = [
    "BlackBox",
    "CodeNetwork",
    "LoraSettings",
    "ModelSettings",
    "Objective",
    "Tokens",
    "Trainer",
    "TrainingSettings",
    "WhiteBox",
    "create",
    "load",
]
