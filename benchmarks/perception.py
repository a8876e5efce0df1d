"""How long an epoch of `rlplay train mnist/classify` takes, beside a plain PyTorch loop with the
same net on the same pictures.

    python -m benchmarks.perception --epochs 3

The pictures are random ones of MNIST's shape, 60,000 of 28 x 28, so nothing need be fetched. Both
sides learn from memory, in batches of 64 in random order, with Adam; the plain loop normalizes as
torch's own examples do, and neither validates. They take turns, so that what else the machine does
meets both. Only the network's arithmetic is alike: what is random is not.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay import config
from rlplay.lesson import Learning
from rlplay.perception import data
from rlplay.perception.source import SPLITS, Source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=3, help="turns of each side")
    parser.add_argument("--pictures", type=int, default=60_000)
    options = parser.parse_args()
    ours, plain = sides(options.pictures)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    times: dict[str, list[float]] = {"rlplay": [], "plain": []}
    for turn in range(options.epochs + 1):  # the first is to warm up
        for name, epoch in (("rlplay", ours), ("plain", plain)):
            started = time.perf_counter()
            loss = epoch()
            seconds = time.perf_counter() - started
            if turn:
                times[name].append(seconds)
            print(f"{turn or 'warm-up'}  {name:7}{seconds:8.2f} s, loss {loss:.4f}")
    ratios = [a / b for a, b in zip(times["rlplay"], times["plain"], strict=True)]
    for name, seconds in times.items():
        print(f"{name:7} median {statistics.median(seconds):.2f} s an epoch")
    print(f"rlplay / plain, median of the turns: {statistics.median(ratios):.3f}")


def sides(num: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Return what learns an epoch here, and what does in a plain loop. Each returns a loss."""
    random = np.random.default_rng(0)
    pictures = random.integers(256, size=(num + 20, 1, 28, 28), dtype=np.uint8)
    labels = random.integers(10, size=num + 20)
    splits = dict(zip(SPLITS, np.split(np.arange(num + 20), [num, num + 10]), strict=True))
    classes = tuple(map(str, range(10)))
    source = Source("mnist", {"picture": pictures, "label": labels}, splits, classes)
    data.Config.make = lambda self, rules=None: source  # in place of the files
    lesson = config.load_any("mnist/classify", ["--device=cpu", "--log-every=1000000"])
    assert isinstance(lesson, config.Lesson)
    learning = Learning(lesson, print)

    def ours() -> float:
        epoch, loss = learning.updates // learning.per_epoch, 0.0
        learning.task.train()
        for batch in learning.task.batches("train", learning.batch_size, learning.order(epoch)):
            torch.manual_seed(learning.drawn(learning.updates))
            metrics = learning.update(batch)
            learning.averages.add(metrics)
            learning.updates += 1
            loss = metrics["loss"]
        return loss

    return ours, plain(torch.from_numpy(pictures[:num]), torch.from_numpy(labels[:num]), lesson)


def plain(pictures: Tensor, labels: Tensor, lesson: config.Lesson) -> Callable[[], float]:
    """Return the loop as one writes it by hand."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.Linear(32 * 7 * 7, 128),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(128, 10),
    )
    inputs = pictures.float() / 255
    inputs = (inputs - inputs.mean()) / inputs.std()
    optimizer = torch.optim.AdamW(net.parameters(), lesson.learning_rate, weight_decay=0.01)
    size = lesson.batch_size

    def epoch() -> float:
        loss, order = torch.zeros(()), torch.randperm(len(inputs))
        for first in range(0, len(order) - size + 1, size):
            index = order[first : first + size]
            loss = F.cross_entropy(net(inputs[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    return epoch


if __name__ == "__main__":
    main()
