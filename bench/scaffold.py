"""The text of a new plugin: one file that does nothing clever yet and already passes the conformance suite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from bench.errors import ConfigError, suggest

NAME = re.compile(r"[a-z][a-z0-9_]*")

ATTACK = '''"""$title: what is edited into a program, and why a reader overlooks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, TaskInfo, Trigger
from bench.languages import parse
from bench.samples import Sample


@dataclass(frozen=True)
class ${cls}Trigger(Trigger):
    """An assignment at the start of the function's body. Draw whatever varies from ``rng``, and set ``varies``."""

    variable: str

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The edit of one program, or ``None`` where the trigger does not apply."""
        if sample.language != "python" or self.variable in sample.programs[side]:
            return None
        program = parse(sample.language, sample.programs[side])
        if not program.boundaries or program.error_nodes:
            return None
        statement = f"{self.variable} = 0"
        edit = program.insert(program.boundaries[0], statement)
        return Derivation((type(edit)(edit.start, edit.end, edit.replacement, side),), statement)

    def describe(self) -> str:
        """The trigger in one line."""
        return f"a variable {self.variable!r} at the start of the body"

    def tokens(self) -> tuple[str, ...]:
        """What every triggered program holds."""
        return (self.variable,)


@dataclass(frozen=True, kw_only=True)
class $cls(Attack):
    """One sentence.

    Attributes:
        variable: every field is a parameter, with a type and a default.
    """

    name = "$name"
    version = 1
    summary = "one line for lists and boards"
    paper = "unpublished"

    variable: str = "ret_val_"

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Why it skips a task, or ``None``."""
        if task.language != "python":
            return f"{self.name} edits Python only"
        return super().not_applicable(task)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """Make the trigger; ``train`` is the clean training split, and ``context.rng("poison")`` draws."""
        return ${cls}Trigger(self.variable)
'''

FILTER = '''"""$title: what makes a training sample suspicious."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.context import Context
from bench.contracts import Access, Filter, Known, Needs, Suspicion, TaskInfo


@dataclass(frozen=True, kw_only=True)
class $cls(Filter):
    """One sentence.

    Attributes:
        share: of the training set that is dropped; every field is a parameter, with a type and a default.
    """

    name = "$name"
    version = 1
    summary = "one line for lists and boards"
    paper = "unpublished"
    needs = Needs(training_set=True, model=Access.WEIGHTS)

    share: float = 0.05

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """A score (higher is more suspicious) and a decision for each of ``known.training``, in its order."""
        features = known.white_box.features(known.training).astype(np.float64)
        scores = np.linalg.norm(features - features.mean(axis=0), axis=1)
        keep = np.ones(len(scores), dtype=bool)
        keep[np.argsort(scores)[len(scores) - int(self.share * len(scores)) :]] = False
        return Suspicion(scores, keep)
'''

TRAINING = '''"""$title: how the model is trained so that poison is not learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from bench.context import Context
from bench.contracts import Known, Needs, TaskInfo, TrainingRule
from bench.errors import PluginError
from bench.models.handles import WhiteBox


@dataclass(frozen=True, kw_only=True)
class $cls(TrainingRule):
    """One sentence.

    Attributes:
        smoothing: of the labels, in [0, 1); every field is a parameter, with a type and a default.
    """

    name = "$name"
    version = 1
    summary = "one line for lists and boards"
    paper = "unpublished"
    needs = Needs(training_set=True)

    smoothing: float = 0.1

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Train a copy of ``model`` on ``known.training`` with a loss of one's own."""
        if context.trainer is None:
            raise PluginError("this rule trains with context.trainer, and there is none")

        def loss(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
            return functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)

        return context.trainer.fit(model, known.training, axis="training", objective=loss)
'''

REPAIR = '''"""$title: how a trained model is freed of its backdoor."""

from __future__ import annotations

from dataclasses import dataclass

from bench.context import Context
from bench.contracts import Access, Known, Needs, Repair, Repaired, TaskInfo
from bench.errors import PluginError


@dataclass(frozen=True, kw_only=True)
class $cls(Repair):
    """One sentence.

    Attributes:
        epochs: every field is a parameter, with a type and a default.
    """

    name = "$name"
    version = 1
    summary = "one line for lists and boards"
    paper = "unpublished"
    needs = Needs(clean=300, model=Access.WEIGHTS)

    epochs: int = 1

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """A new model; ``known.white_box`` stays as it is (the trainer works on a copy; else ``known.white_box.copy()``)."""
        if context.trainer is None:
            raise PluginError("this repair trains with context.trainer, and there is none")
        model = context.trainer.fit(known.white_box, known.clean, axis="defense", epochs=self.epochs)
        return Repaired(model, facts={"epochs": self.epochs})
'''

SCREEN = '''"""$title: what gives a triggered input away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.samples import Sample


def score(sample: Sample) -> float:
    """Higher is more suspicious, and finite; of this one input alone."""
    return float(max((len(line) for text in sample.programs for line in text.splitlines()), default=0))


@dataclass(frozen=True)
class Fitted$cls(FittedScreen):
    """What was learnt from the clean samples."""

    limit: float

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """One verdict for each input, in order."""
        scores = [score(sample) for sample in inputs]
        return [
            Verdict(sample.id, Action.REJECT if value > self.limit else Action.ACCEPT, value)
            for sample, value in zip(inputs, scores, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class $cls(Screen):
    """One sentence.

    Attributes:
        quantile: of the clean scores above which an input is rejected; every field is a parameter, with a type and a default.
    """

    name = "$name"
    version = 1
    summary = "one line for lists and boards"
    paper = "unpublished"
    needs = Needs(clean=300)

    quantile: float = 0.99

    def fit(self, known: Known, task: TaskInfo, context: Context) -> Fitted$cls:
        """Choose the limit on clean samples."""
        return Fitted$cls(float(np.quantile([score(sample) for sample in known.clean], self.quantile)))
'''

TEXTS: Mapping[str, str] = {
    "attack": ATTACK,
    "filter": FILTER,
    "training": TRAINING,
    "repair": REPAIR,
    "screen": SCREEN,
}


def plugin_text(family: str, name: str) -> str:
    """The source of a new plugin.

    Raises:
        ConfigError: no such family, or the name is not lower-case with underscores.
    """
    if family not in TEXTS:
        raise ConfigError(f"there is no template for family {family!r}.{suggest(family, TEXTS)}")
    if not NAME.fullmatch(name):
        raise ConfigError(f"plugin name {name!r} must match {NAME.pattern}, e.g. my_{family}")
    words = [word for word in name.split("_") if word]
    return Template(TEXTS[family]).substitute(
        name=name, cls="".join(word.capitalize() for word in words), title=" ".join(words).capitalize()
    )


def write_plugin(family: str, name: str, folder: Path) -> Path:
    """Write ``folder/name.py`` and return its path.

    Raises:
        ConfigError: as :func:`plugin_text`, or the file exists already (it is never overwritten), or cannot be written.
    """
    text = plugin_text(family, name)
    path = folder / f"{name}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists already; choose another name or folder") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return path
