"""Linear probes: what of a game's state can be read off features, F1 of its variables and the error
of its positions.

As in AtariARI (Anand et al. 2019) a linear layer tells the value of each variable in RAM, judged by
F1, each value weighted by its share of the moments; a variable whose values in training have an
entropy below `min_entropy` says little, and is left out. Unlike there the layers are fitted in
closed form, by ridge regression to which value it is (Rifkin et al. 2003): nothing depends on step
sizes and epochs. A second ridge regression tells the positions themselves, in units of RAM. Fitted
on the episodes of the training split, with the penalty that the validation likes best, probes are
judged on the episodes of the test.

A position is only looked at where its object is seen: what RAM says of a ball that is not there, no
encoder can know. It does not know where the features come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rlplay.core import Array, Mistake, Range
from rlplay.nets import hardware
from rlplay.perception.objects import games
from rlplay.perception.source import Source

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""Of a ridge regression on features of variance 1."""
Report = dict[str, Any]


@dataclass(frozen=True)
class Config:
    min_entropy: Annotated[float, Range(0)] = 0.6
    """Nats below which a variable is left out."""
    max_features: Annotated[int, Range(1)] = 8192
    """Numbers of a map that a probe sees; larger ones are averaged down in height and width."""
    components: Annotated[int, Range(0)] = 0
    """Probe so many principal components of a map instead; 0 for all that it has."""
    maps: Literal["all", "last"] = "all"
    """Which maps of the encoder: all or the coarsest, which an agent goes on with."""
    baselines: bool = True
    """Probe the pixels and random weights too."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Seed of the random weights."""


class Judge:
    """What there is to know of the moments of a game, and how well it is known."""

    def __init__(self, source: Source, min_entropy: float) -> None:
        """Raises Mistake where nothing is known of the state, or no variable varies."""
        if "variables" not in source.arrays:
            raise Mistake(
                f"nothing is known of the state of {source.name}: name recorded frames of one of"
                f" {', '.join(games())}"
            )
        self.splits = source.splits
        every = np.arange(len(source.arrays["episode"][:]))
        values = np.asarray(source.arrays["variables"][every])  # [n, V] uint8
        train = values[self.splits["train"]]
        self.entropy = dict(zip(source.variables, map(entropy, train.T), strict=True))
        self.names = [name for name, nats in self.entropy.items() if nats >= min_entropy]
        if not self.names:
            raise Mistake(
                f"no variable of {source.name} has an entropy of {min_entropy:g} nats in this"
                " recording: set --min-entropy lower, or record more"
            )
        self.values = values[:, [source.variables.index(name) for name in self.names]]
        self.visible = np.ones(self.values.shape, bool)
        if "kind" in source.arrays and any(map(positional, self.names)):
            kinds = source.arrays["kind"][every]  # [n, K]
            for i, name in enumerate(self.names):
                if positional(name) and (kind := name[:-2]) in source.kinds[1:]:
                    self.visible[:, i] = (kinds == source.kinds.index(kind)).any(1)

    def judge(self, features: Array, components: int = 0) -> Report:
        """Return how well probes on features [n, F] do on the test: F1 and accuracy of each
        variable, and the mean absolute error of the positions."""
        x = standard(features, self.splits["train"])
        if components and components < x.shape[1]:
            x = principal(x, self.splits["train"], components)
        said = classify(x, self.values, self.splits)
        truth = self.values[self.splits["test"]]
        pairs = list(zip(self.names, truth.T, said.T, strict=True))
        scores = {name: f1(true, one) for name, true, one in pairs}
        right = {name: float((true == one).mean()) for name, true, one in pairs}
        errors = self.errors(x)
        return {
            "features": x.shape[1],
            "mean_f1": float(np.mean([weighted for weighted, _ in scores.values()])),
            "mean_f1_macro": float(np.mean([macro for _, macro in scores.values()])),
            "mean_accuracy": float(np.mean(list(right.values()))),
            "mean_error": float(np.mean(list(errors.values()))) if errors else None,
            "f1": {name: weighted for name, (weighted, _) in scores.items()},
            "f1_macro": {name: macro for name, (_, macro) in scores.items()},
            "accuracy": right,
            "error": errors,
        }

    def errors(self, features: Tensor) -> dict[str, float]:
        """Return the mean absolute error on the test of positions where they can be seen."""
        found: dict[str, float] = {}
        wanted = [i for i, name in enumerate(self.names) if positional(name)]
        patterns = {self.visible[:, i].tobytes(): self.visible[:, i] for i in wanted}
        for pattern, seen in patterns.items():  # one regression for all that are seen together
            alike = [i for i in wanted if self.visible[:, i].tobytes() == pattern]
            parts = {name: index[seen[index]] for name, index in self.splits.items()}
            if all(map(len, parts.values())):
                truth = torch.from_numpy(self.values[:, alike].astype(np.float32))
                off = regress(features, truth, parts)
                found |= dict(zip([self.names[i] for i in alike], off, strict=True))
        return {self.names[i]: found[self.names[i]] for i in wanted if self.names[i] in found}


def positional(name: str) -> bool:
    return name.endswith(("_x", "_y"))


def entropy(values: Array) -> float:
    """Return the entropy of whole numbers [n], nats."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log(share)).sum())


def standard(features: Array, train: Array) -> Tensor:
    """Return features [n, F] with mean 0 and variance 1 in training, without those that hardly ever
    change there; no number is beyond 10 deviations."""
    mean, deviation = features[train].mean(0), features[train].std(0)
    varies = deviation > 1e-3 * max(float(deviation.max(initial=0)), 1e-9)
    scaled = (features[:, varies] - mean[varies]) / deviation[varies]
    return torch.from_numpy(np.clip(scaled, -10, 10)).to(hardware.device("auto"))


def principal(features: Tensor, train: Array, num: int) -> Tensor:
    """Return the `num` directions of features [n, F] that vary most in training, [n, num], each
    with variance 1 there."""
    known = features[torch.from_numpy(train)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, size, direction = torch.svd_lowrank(known, min(num, *known.shape), niter=4)
    return features @ direction / (size / len(known) ** 0.5).clamp(min=1e-6)


def ridge(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield for each of PENALTIES the weights [F + 1, K] of the ridge regression (Hoerl & Kennard
    1970) from features [n, F] to y [n, K], the last row for the constant; none for a penalty too
    small for float32."""
    centre, mean = x.mean(0), y.mean(0)
    inside, wanted = x - centre, y - mean
    wide = len(x) < x.shape[1]  # then solve among the moments, and not the features
    gram = inside @ inside.T if wide else inside.T @ inside
    target = wanted if wide else inside.T @ wanted
    for penalty in PENALTIES:
        loaded = gram + penalty * torch.eye(len(gram), device=x.device)
        factor, failed = torch.linalg.cholesky_ex(loaded)
        if not failed.item():
            solved = torch.cholesky_solve(target, factor)
            weight = inside.T @ solved if wide else solved
            yield torch.cat([weight, (mean - centre @ weight)[None]])


def answers(x: Tensor, weight: Tensor) -> Tensor:
    """Return what a regression [F + 1, K] says of features [n, F]: [n, K]."""
    return x @ weight[:-1] + weight[-1]


def taken(x: Tensor, parts: dict[str, Array]) -> dict[str, Tensor]:
    return {name: x[torch.from_numpy(index).to(x.device)] for name, index in parts.items()}


def classify(features: Tensor, values: Array, splits: dict[str, Array]) -> Array:
    """Return what linear probes on features [n, F] say of the test's variables, [m, V] uint8, given
    those of all moments [n, V]. A probe knows the values that occur in training."""
    known = [np.unique(column) for column in values[splits["train"]].T]
    sizes = [len(own) for own in known]
    ones = [
        F.one_hot(torch.from_numpy(np.searchsorted(own, column)), len(own))
        for own, column in zip(known, values[splits["train"]].T, strict=True)
    ]
    x = taken(features, splits)
    validation = values[splits["validation"]]
    best = np.full(len(known), -1.0)
    said = np.zeros((len(splits["test"]), len(known)), np.uint8)
    for weight in ridge(x["train"], torch.cat(ones, 1).float().to(features.device)):
        parts = [answers(x[name], weight).split(sizes, 1) for name in ("validation", "test")]
        for i, (own, seen, asked) in enumerate(zip(known, *parts, strict=True)):
            score, _ = f1(validation[:, i], own[seen.argmax(1).cpu().numpy()])
            if score > best[i]:
                best[i], said[:, i] = score, own[asked.argmax(1).cpu().numpy()]
    return said


def regress(features: Tensor, truth: Tensor, parts: dict[str, Array]) -> list[float]:
    """Return the mean absolute error on the test part of linear probes from features [n, F] to each
    of the numbers [n, K]."""
    x, y = taken(features, parts), taken(truth.to(features.device), parts)
    best = off = torch.full((truth.shape[1],), torch.inf, device=features.device)
    for weight in ridge(x["train"], y["train"]):
        validation, test = (
            (answers(x[name], weight) - y[name]).abs().mean(0) for name in ("validation", "test")
        )
        better = validation < best
        best, off = torch.where(better, validation, best), torch.where(better, test, off)
    return off.tolist()


def f1(truth: Array, said: Array) -> tuple[float, float]:
    """Return the F1 of values 0..255 said of n moments [n]: the mean over the values, each weighted
    by its share of the truth, and the plain one over all values true or said."""
    right = np.bincount(truth[truth == said], minlength=256)
    true, guessed = np.bincount(truth, minlength=256), np.bincount(said, minlength=256)
    either = true + guessed
    each = 2 * right / np.maximum(either, 1)
    return float((each * true).sum() / len(truth)), float(each[either > 0].mean())
