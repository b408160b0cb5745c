"""Published models by a short name: where they lie, at which commit, and how the field reads them.

A preset fills in what a suite leaves open: the hub repository, the commit, windows, pair head and pooling of CodeXGLUE's baselines (and
of EliBadCode's release, which follows them), and LoRA for language models. Whatever a suite states wins. The filled-in settings
stand in the stage keys, so a preset that changes changes the keys.

**None of them has been loaded here**: the project was built without a connection to the hub. The commits were read in public
files that state them (``stated_by``: what a search for the exact hash in an index of public repositories found, at most ten files
a search), not on the hub itself. Weights are read from safetensors alone and no code of a repository is run;
a repository that holds a pickle alone at that commit is refused, and its converted copy can be given as ``path`` (docs/models.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.contracts import TaskKind
from bench.errors import ConfigError
from bench.models.settings import LoraSettings, ModelSettings

PUBLISHED: Mapping[str, Any] = {"window": 400, "query_window": 128, "pair_head": "concat"}
"""CodeXGLUE's baselines for defect and clone detection: 400 tokens a program, the vectors of a pair side by side."""

SEARCH_WINDOW = 256
"""Tokens of a program in CodeXGLUE-style code search; its queries have 128."""


@dataclass(frozen=True)
class Preset:
    """A published model.

    Attributes:
        repository: on the hub.
        revision: full commit; ``None`` where none is known, and the suite must give one.
        architecture: ``model_type`` of its configuration.
        parameters: in millions, as published.
        stated_by: public files that state the commit.
        settings: what it fills in beside :data:`PUBLISHED`.
        remark: what a user should know.
    """

    repository: str
    revision: str | None
    architecture: str
    parameters: int
    stated_by: str
    settings: Mapping[str, Any]
    remark: str = ""

    def fill(self, name: str, settings: ModelSettings, kind: TaskKind) -> ModelSettings:
        """Settings with what the suite left open.

        Raises:
            ConfigError: neither the suite nor the preset says which commit, and no folder is given.
        """
        own = {**PUBLISHED, **self.settings}
        if kind is TaskKind.SEARCH:
            own["window"] = SEARCH_WINDOW
        if settings.path is None:
            if settings.revision is None and self.revision is None:
                raise ConfigError(
                    f"model {name!r} is {self.repository} on the hub, and no full commit of it is known here: "
                    "set its 'revision' to one, or its 'path' to a local folder"
                )
            if settings.revision is None:
                own["revision"] = self.revision
        given = settings.model_fields_set - ({"revision"} if settings.revision is None else set())
        return settings.model_copy(update={field: value for field, value in own.items() if field not in given})


LORA: Mapping[str, Any] = {"lora": LoraSettings()}

PRESETS: Mapping[str, Preset] = {
    "codebert": Preset(
        "microsoft/codebert-base",
        "3b0952feddeffad0063f274080e3c23d75e7eb39",
        "roberta",
        125,
        "ten public files, in cache paths and as pinned revisions",
        {},
    ),
    "graphcodebert": Preset(
        "microsoft/graphcodebert-base",
        "2b0488a7bb0eefc7041f1bb2cad1ab26b0da269d",
        "roberta",
        125,
        "ten public files, as a pinned revision; one of them lists its weights as pytorch_model.bin",
        {},
        "read as text alone: the data-flow input of its paper is not built",
    ),
    "unixcoder": Preset(
        "microsoft/unixcoder-base",
        "5604afdc964f6c53782a6813140ade5216b99006",
        "roberta",
        126,
        "ten public files, as a pinned revision and in cache paths; one of them lists its weights as pytorch_model.bin",
        {},
        "read as a plain RoBERTa, without its mode tokens, as in EliBadCode's release",
    ),
    "codet5-base": Preset(
        "Salesforce/codet5-base",
        "4078456db09ba972a3532827a0b5df4da172323c",
        "t5",
        223,
        "three public files, in cache paths",
        {},
    ),
    "codet5p-110m": Preset(
        "Salesforce/codet5p-110m-embedding",
        "d9f3a534af4252f04b10cd9f78e05037542d10f6",
        "codet5p_embedding",
        110,
        "three public files, in cache paths and as a model commit",
        {"pooling": "first"},
        "its configuration asks for code of its own; it is read as the T5 encoder that it is, without the projection to 256",
    ),
    "codet5p-220m": Preset(
        "Salesforce/codet5p-220m",
        "bcef69c847f3218e9f980baadad708efdffb2541",
        "t5",
        223,
        "two public files of one owner, in cache paths; it may not be the latest commit",
        {},
    ),
    "starcoderbase-1b": Preset(
        "bigcode/starcoderbase-1b",
        "182f0165fdf8da9c9935901eec65c94337f01c11",
        "gpt_bigcode",
        1137,
        "six public files, in cache paths with model.safetensors and as a pinned revision",
        LORA,
        "its licence must be accepted on the hub first",
    ),
    "qwen2.5-coder-0.5b": Preset(
        "Qwen/Qwen2.5-Coder-0.5B",
        "8123ea2e9354afb7ffcc6c8641d1b2f5ecf18301",
        "qwen2",
        494,
        "ten public files, as a pinned revision",
        LORA,
    ),
    "qwen2.5-coder-1.5b": Preset(
        "Qwen/Qwen2.5-Coder-1.5B",
        "df3ce67c0e24480f20468b6ef2894622d69eb73b",
        "qwen2",
        1544,
        "ten public files, as a pinned revision",
        LORA,
    ),
}
"""By the name that a suite gives."""


def filled(name: str, settings: ModelSettings, kind: TaskKind) -> ModelSettings:
    """Settings of a model with what its preset fills in; of a model that is no preset, as they are.

    Args:
        name: as a suite names the model.
        settings: as the suite states them.
        kind: of the task; code search has a window of its own.

    Raises:
        ConfigError: no commit is known, or ``path`` is given for a model that is no preset.
    """
    preset = PRESETS.get(name)
    if preset is not None:
        return preset.fill(name, settings, kind)
    if settings.path is not None:
        raise ConfigError(
            f"model {name!r} is no preset, and 'path' says where a preset's weights lie: give the folder as the model's name"
        )
    return settings
