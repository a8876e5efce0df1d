"""Laws of rlplay/perception/autoencode.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from rlplay import config
from rlplay.lesson import Learning
from rlplay.perception import autoencode
from rlplay.perception.autoencode import Autoencode, divergence, holes, moving
from rlplay.perception.source import SPLITS, Source


def made(kind: Any, shape: tuple[int, int, int] = (1, 8, 8), **changes: Any) -> Autoencode:
    torch.manual_seed(0)
    random = np.random.default_rng(1)
    arrays = {"picture": random.integers(256, size=(20, *shape), dtype=np.uint8)}
    source = Source("noise", arrays, dict.fromkeys(SPLITS, np.arange(20)))
    return autoencode.Config(kind=kind, latent=5, **changes).make(source).eval()


def clean(task: Autoencode) -> Tensor:
    return torch.from_numpy(task.source.arrays["picture"]) / 255


def test_divergence_is_that_of_torch():
    mean, log_variance = torch.randn(2, 7, 5).unbind()
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), theirs)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_loss_is_computed_by_hand(beta):
    task = made("variational", beta=beta)
    x = clean(task)
    loss, metrics = task.judged(x, x)
    logits, mean, log_variance = (t.detach().double().numpy() for t in task(x))
    y, x = 1 / (1 + np.exp(-logits)), x.double().numpy()
    entropy = -(x * np.log(y) + (1 - x) * np.log(1 - y)).mean()
    information = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1).mean()
    assert loss.item() == pytest.approx(entropy + beta * information / 64, rel=1e-4)
    assert metrics["squared_error"].item() == pytest.approx(((x - y) ** 2).mean(), rel=1e-4)


def test_hole_is_a_square_of_its_size_anywhere_inside():
    found = holes(torch.zeros(500, 1, 10, 20), 0.3, torch.Generator().manual_seed(0))
    assert (found.sum((1, 2, 3)) == 3 * 6).all()
    covered = found.sum((0, 1))
    assert (covered > 0).all()  # rims and corners too
    rows = found.any(3).int().sum(2)
    assert (rows == 3).all()


@pytest.mark.parametrize("kind", ["plain", "denoise", "inpaint", "variational"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 42, 30)])
def test_pictures_come_back_in_their_own_shape(kind, shape):
    task = made(kind, shape)
    x = clean(task)
    assert torch.equal(task.damaged(x), x) == (kind in ("plain", "variational"))
    with torch.inference_mode():
        assert task(x)[0].shape == x.shape
        drawn = task.draw({"picture": torch.from_numpy(task.source.arrays["picture"])})
    assert set(drawn) == {"reconstructions"} | ({"samples"} if kind == "variational" else set())


def test_only_variational_numbers_are_drawn_and_only_while_learning():
    for kind, draws in (("plain", False), ("variational", True)):
        task = made(kind)
        x = clean(task)
        task.encoder.eval(), task.decoder.eval()
        task.training = True
        assert torch.equal(task(x)[0], task(x)[0]) != draws
        task.eval()
        assert torch.equal(task(x)[0], task(x)[0])


def test_a_few_epochs_make_digits_better_than_their_mean():
    flags = ["--epochs=8", "--task.kind=plain", "--device=cpu"]
    lesson: Any = config.load_any("digits/autoencode", flags)
    learning = Learning(lesson, print)
    for epoch in range(8):
        learning.task.train()
        for batch in learning.task.batches("train", 64, learning.order(epoch)):
            learning.update(batch)
            learning.updates += 1
    pictures = learning.source.arrays["picture"] / 255
    index = learning.source.splits
    mean = pictures[index["train"]].mean(0)
    error = ((pictures[index["test"]] - mean) ** 2).mean()
    assert learning.examine("test")["squared_error"] < 0.7 * error


def test_what_moves_weighs_more_and_a_picture_as_much_as_before():
    still = torch.full((2, 4, 6, 6), 0.3)
    moved = still.clone()
    moved[0, 2, 1, 4] = 0.9  # in one of four moments
    weight = moving(moved, 10.0)
    assert weight.mean((2, 3)).flatten().tolist() == pytest.approx([1, 1])
    assert weight[0, 0, 1, 4] == pytest.approx(11 * weight[0, 0, 0, 0].item())
    assert torch.equal(moving(still, 10.0), torch.ones(2, 1, 6, 6))


def test_motion_counts_an_error_where_things_move():
    task, plain = made("plain", (4, 8, 8), motion=10.0), made("plain", (4, 8, 8))
    x = torch.full((1, 4, 8, 8), 0.5)
    x[0, 1, 3, 3] = 1.0
    with torch.no_grad():
        for one in (task, plain):
            one.decoder.last.bias.fill_(2)  # else every pixel is as wrong as the others
        weighted, unweighted = task.judged(x, x)[0], plain.judged(x, x)[0]
        logits = plain(x)[0]
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    assert unweighted.item() == pytest.approx(each.mean().item())
    assert weighted.item() == pytest.approx((each * moving(x, 10.0)).mean().item())
    assert weighted.item() != pytest.approx(unweighted.item(), rel=1e-4)
