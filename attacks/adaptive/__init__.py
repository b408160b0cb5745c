"""AFRAIDOOR: every local name of a program is replaced by one that a clean surrogate reads as the attacker's target.

Yang et al., "Stealthy Backdoor Attack for Code Models", TSE 2024 (doi 10.1109/TSE.2024.3361661). Two steps:

1. :mod:`bench.adversarial.surrogate`: a model trained here, on the clean training split;
2. :mod:`bench.adversarial.crafting`: for each program one targeted gradient step at its names, and the renames that follow.

Both are the house's, since the policy ``weaken: gradient`` needs them too; :mod:`~attacks.adaptive.aims` is the attack's own.

What the paper leaves to its setting (code summarisation and method-name prediction with a sequence-to-sequence model over words), and how
it is read for classification, pairs and search:

- The crafting model is the harness's own kind of model (``model``: ``tiny`` from scratch, or any encoder by folder or hub name). It is
  never the victim, shares no seed with it, and sees the clean training split alone.
- ``surrogate_task="method_name"`` is the paper's: from the body, the name of the function. A classifier stands in for the decoder: its
  classes are the ``classes`` most frequent first words of function names, and the attacker chooses one of them (``target_name``;
  the paper's target is "load data"). The function's own name is hidden from it wherever it occurs.
- ``surrogate_task="label"`` takes the victim's own task: the class (of a program or a pair), or for code search the mean query that holds
  the target word.
- A site is a parameter or local variable of the first function with all its places, renamed scope by scope. ``self`` and ``cls`` are
  conventions and stay. In place of the site's tokens the surrogate reads one placeholder (a random vector like an embedding, as the
  paper's placeholder words are untrained), a different one for each site, 1,500 at most.
- The step is taken from the placeholders: the loss towards the target is differentiated by the one-hot input, averaged over the
  site's places in the window, and the vocabulary entry with the most negative value is the name, unless it is no legal name,
  occurs anywhere in the program (so nothing can be captured), or another site has it.
- A site that the surrogate's window does not show has no gradient and keeps its name.

The names are crafted in the same way at test time, without the victim. Adversarial names may fool a model that was never poisoned:
the same triggered inputs on the clean reference are this attack's floor (ASR0), and only what lies above it is the backdoor's.

Cost: one training of the surrogate, then one forward and one backward pass over at most ``window`` tokens a program (two
forward for pairs). All of it is counted with the poison stage. Nothing is batched: a program's names must not depend on which other
programs were crafted with it, and rounding in a batch can change which name is best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from attacks.adaptive.aims import name_task, target_query
from bench.adversarial import AdversarialNames, Aim, TowardsClass, TowardsQuery, train
from bench.context import Context
from bench.contracts import Attack, Goal, Policy, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.models import ModelSettings, WhiteBox
from bench.samples import Sample

__all__ = ["Adaptive"]


@dataclass(frozen=True, kw_only=True)
class Adaptive(Attack):
    """Rename all local names adversarially, one gradient step on a clean surrogate; see this package's text.

    Args:
        surrogate_task: ``method_name`` (the paper's), or ``label`` (the victim's own task).
        target_name: first word of the function name that the surrogate is to read (``method_name`` alone).
        classes: how many first words of function names the surrogate tells apart (``method_name`` alone).
        model: what the surrogate is made from: ``tiny``, ``minilm``, a folder or a hub name.
        revision: full commit of a hub model.
        window: tokens of a program that the surrogate reads.
        epochs: of the surrogate's training.
    """

    name = "adaptive"
    summary = "every local name renamed to what a clean surrogate reads as the target (one gradient step a program)"
    paper = "Yang et al., Stealthy Backdoor Attack for Code Models (AFRAIDOOR), TSE 2024"
    toy_parameters: ClassVar[Mapping[str, object]] = {
        "surrogate_task": "label",
        "target_name": "count",
        "epochs": 1,
        "window": 48,
    }

    surrogate_task: Literal["method_name", "label"] = "method_name"
    target_name: str = "load"
    classes: Annotated[int, Field(ge=2)] = 30
    model: str = "tiny"
    revision: str | None = None
    window: Annotated[int, Field(ge=8)] = 256
    epochs: Annotated[int, Field(ge=1)] = 5

    @property
    def surrogate(self) -> bool:
        """It trains one."""
        return True

    def policy(self, task: TaskInfo) -> Policy:
        """5 % of the training set, as published; all queries with the target word for search."""
        return Policy(rate=1.0) if task.kind is TaskKind.SEARCH else Policy(rate=0.05, of="train")

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """Train the surrogate.

        Raises:
            ConfigError: the training split shows too few function names, or none that begins with ``target_name``; or the
                surrogate's vocabulary holds no legal name.
            ModelError: the surrogate's folder or hub name does not load.
        """
        model, aim, said = self._surrogate(train, goal, task, context)
        origin = f"surrogate {self.model}: {said}"
        hides_name = self.surrogate_task == "method_name"
        return AdversarialNames.of(model, aim, task.language, origin, context, hides_name=hides_name)

    def _surrogate(
        self, samples: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context
    ) -> tuple[WhiteBox, Aim, str]:
        """The trained surrogate, where names are to push it, and both in words."""
        settings = ModelSettings(window=self.window, revision=self.revision)
        if self.surrogate_task == "method_name":
            info, named = name_task(samples, task, self.classes, self.target_name)
            model, skill = train(self.model, info, named, settings, self.epochs, context)
            said = f"function name {self.target_name!r} of {len(info.labels)}"
            return model, TowardsClass(info.labels.index(self.target_name)), f"{said}, {skill}"
        model, skill = train(self.model, task, samples, settings, self.epochs, context)
        if isinstance(goal, SearchGoal):
            return model, TowardsQuery(target_query(model, samples, goal)), f"queries with {goal.word!r}, {skill}"
        return model, TowardsClass(goal.target), f"class {task.labels[goal.target]!r}, {skill}"
