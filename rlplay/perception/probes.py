"""Linear probes: what of a game's state can be read off features, F1 of its variables and the error
of its positions.

After AtariARI (Anand et al. 2019): one softmax layer for each variable in RAM tells its value,
judged by F1, each value weighted by its share of the moments. Beside it stands how far off a ridge
regression of positions is. A variable whose values in training have an entropy below `min_entropy`
says little, and is left out. Probes learn from the episodes of the training split, stop by those of
the validation, and are judged on those of the test.

A position is only looked at where its object is seen: what RAM says of a ball that is not there, no
encoder can know. It does not know where the features come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Array, Mistake, Range
from rlplay.nets import hardware
from rlplay.perception.data import Source
from rlplay.perception.objects import games

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""Of the ridge regression, on features of variance 1; the validation chooses."""
Report = dict[str, Any]


@dataclass(frozen=True)
class Config:
    epochs: Annotated[int, Range(1)] = 40
    """At most; each variable keeps the probe of the epoch that its validation liked best."""
    patience: Annotated[int, Range(1)] = 5
    """Epochs without a better validation of any variable after which the probes are done."""
    batch_size: Annotated[int, Range(1)] = 64
    """Moments in one update of the probes."""
    learning_rate: Annotated[float, Range(0, 1)] = 5e-4
    """Step size of the probes' Adam."""
    min_entropy: Annotated[float, Range(0)] = 0.6
    """Nats below which a variable is left out."""
    max_features: Annotated[int, Range(1)] = 8192
    """Numbers of a map that a probe sees."""
    baselines: bool = True
    """Probe the pixels and random weights too."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Seed of the random weights and of the probes."""


class State:
    """What is to be known: variables of each moment, and where they can be seen."""

    def __init__(self, source: Source, min_entropy: float) -> None:
        """Raises Mistake where nothing is known of the state, or no variable varies."""
        if "variables" not in source.arrays:
            raise Mistake(
                f"nothing is known of the state of {source.name}: name recorded frames of one of"
                f" {', '.join(games())}"
            )
        self.splits = source.splits
        self.values = np.asarray(
            source.arrays["variables"][np.arange(len(source.arrays["episode"][:]))]
        )  # [n, V]
        train = self.values[self.splits["train"]]
        every = dict(zip(source.variables, map(entropy, train.T), strict=True))
        self.entropy = every
        self.names = [name for name, nats in every.items() if nats >= min_entropy]
        if not self.names:
            raise Mistake(
                f"no variable of {source.name} has an entropy of {min_entropy:g} nats in this"
                " recording: set --min-entropy lower, or record more"
            )
        self.values = self.values[:, [source.variables.index(name) for name in self.names]]
        self.visible = np.ones(self.values.shape, bool)
        kinds = (
            source.arrays["kind"][np.arange(len(source.arrays["episode"][:]))]
            if "kind" in source.arrays
            else None
        )
        for i, name in enumerate(self.names):
            if kinds is not None and (kind := name[:-2]) in source.kinds[1:] and positional(name):
                self.visible[:, i] = (kinds == source.kinds.index(kind)).any(1)

    def judge(self, features: Array, settings: Config) -> Report:
        """Return how well probes on features [n, F] do on the test: F1 and accuracy of each
        variable, and the mean absolute error of positions, in RAM's own units."""
        features = standard(features, self.splits["train"])
        said = classify(features, self.values, self.splits, settings)
        truth = self.values[self.splits["test"]]
        scores = [f1(t, s) for t, s in zip(truth.T, said.T, strict=True)]
        right = (said == truth).mean(0)
        errors = self.errors(features)
        return {
            "features": features.shape[1],
            "mean_f1": float(np.mean([weighted for weighted, _ in scores])),
            "mean_f1_macro": float(np.mean([macro for _, macro in scores])),
            "mean_accuracy": float(right.mean()),
            "mean_error": float(np.mean(list(errors.values()))) if errors else None,
            "f1": dict(zip(self.names, (weighted for weighted, _ in scores), strict=True)),
            "f1_macro": dict(zip(self.names, (macro for _, macro in scores), strict=True)),
            "accuracy": dict(zip(self.names, map(float, right), strict=True)),
            "error": errors,
        }

    def errors(self, features: Tensor) -> dict[str, float]:
        """Return the mean absolute error on the test of the positions where they can be seen."""
        found: dict[str, float] = {}
        wanted = [i for i, name in enumerate(self.names) if positional(name)]
        patterns = {self.visible[:, i].tobytes(): self.visible[:, i] for i in wanted}
        for pattern, seen in patterns.items():  # one regression for all that are seen together
            alike = [i for i in wanted if self.visible[:, i].tobytes() == pattern]
            parts = {name: index[seen[index]] for name, index in self.splits.items()}
            if all(map(len, parts.values())):
                truth = self.values[:, alike].astype(np.float32)
                off = regress(features, torch.from_numpy(truth), parts)
                found |= dict(zip([self.names[i] for i in alike], off, strict=True))
        return {self.names[i]: found[self.names[i]] for i in wanted if self.names[i] in found}


def positional(name: str) -> bool:
    return name.endswith(("_x", "_y"))


def entropy(values: Array) -> float:
    """Return the entropy of whole numbers [n], nats."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log(share)).sum())


def standard(features: Array, train: Array) -> Tensor:
    """Return features [n, F] with mean 0 and variance 1 in training, without those that never
    change there; no number is beyond 10 deviations."""
    mean, deviation = features[train].mean(0), features[train].std(0)
    varies = deviation > 1e-3 * max(float(deviation.max(initial=0)), 1e-9)
    scaled = (features[:, varies] - mean[varies]) / deviation[varies]
    return torch.from_numpy(np.clip(scaled, -10, 10))


def classify(features: Tensor, values: Array, splits: dict[str, Array], settings: Config) -> Array:
    """Learn softmax probes of variables [n, V] uint8 from features [n, F]; return what they say of
    the test [m, V] uint8. A probe knows the values that occur in training."""
    device = hardware.device("auto")
    known = [np.unique(column) for column in values[splits["train"]].T]
    sizes = [len(own) for own in known]
    x = {name: features[torch.from_numpy(index)].to(device) for name, index in splits.items()}
    pairs = list(zip(known, values.T, strict=True))
    target = {
        name: [torch.from_numpy(places(own, column[index])).to(device) for own, column in pairs]
        for name, index in splits.items()
    }
    width = features.shape[1]
    layer = nn.Linear(width, sum(sizes)).to(device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    scale = width**-0.5  # so that steps of Adam change the answers alike, however many features
    adam = torch.optim.Adam(layer.parameters(), settings.learning_rate / scale, fused=True)
    random = torch.Generator().manual_seed(settings.seed)
    best = torch.full((len(sizes),), torch.inf)
    said = np.zeros((len(splits["test"]), len(sizes)), np.uint8)
    waited = 0
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(x["train"]), generator=random).split(settings.batch_size):
            logits = (layer(x["train"][batch] * scale)).split(sizes, 1)
            losses = map(F.cross_entropy, logits, (truth[batch] for truth in target["train"]))
            adam.zero_grad()
            torch.stack(list(losses)).sum().backward()
            adam.step()
        with torch.no_grad():
            logits = layer(x["validation"] * scale).split(sizes, 1)
            answers = layer(x["test"] * scale).split(sizes, 1)
        waited += 1
        for i, (one, truth) in enumerate(zip(logits, target["validation"], strict=True)):
            loss = F.cross_entropy(one, truth, ignore_index=-1).nan_to_num(0).cpu()
            if loss < best[i]:
                best[i], waited = loss, 0
                said[:, i] = known[i][answers[i].argmax(1).cpu().numpy()]
        if waited >= settings.patience:
            break
    return said


def places(known: Array, values: Array) -> Array:
    """Return where values [n] stand in `known`, in order, int64; -1 for those not in it."""
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[place] == values, place, -1)


def regress(features: Tensor, truth: Tensor, parts: dict[str, Array]) -> list[float]:
    """Return the mean absolute error on the test part of a ridge regression (Hoerl & Kennard 1970)
    from features [n, F] to each of the numbers [n, K], whose penalty the validation chooses."""
    x = {name: features[torch.from_numpy(index)] for name, index in parts.items()}
    y = {name: truth[torch.from_numpy(index)] for name, index in parts.items()}
    centre, mean = x["train"].mean(0), y["train"].mean(0)
    inside, wanted = x["train"] - centre, y["train"] - mean
    tall = len(inside) < inside.shape[1]  # then solve among the moments, and not the features
    gram = inside @ inside.T if tall else inside.T @ inside
    best, off = torch.full((truth.shape[1],), torch.inf), torch.zeros(truth.shape[1])
    for penalty in PENALTIES:
        factor = torch.linalg.cholesky(gram + penalty * torch.eye(len(gram)))
        solved = torch.cholesky_solve(wanted if tall else inside.T @ wanted, factor)
        weight = inside.T @ solved if tall else solved
        miss = {
            name: ((x[name] - centre) @ weight + mean - y[name]).abs().mean(0)
            for name in ("validation", "test")
        }
        better = miss["validation"] < best
        best = torch.where(better, miss["validation"], best)
        off = torch.where(better, miss["test"], off)
    return off.tolist()


def f1(truth: Array, said: Array) -> tuple[float, float]:
    """Return the F1 of values said of n moments [n] uint8: the mean over the values, each weighted
    by its share of the truth, and the plain one over all values true or said."""
    right = np.bincount(truth[truth == said], minlength=256)
    true, guessed = np.bincount(truth, minlength=256), np.bincount(said, minlength=256)
    either = true + guessed
    each = 2 * right / np.maximum(either, 1)
    return float((each * true).sum() / len(truth)), float(each[either > 0].mean())
