"""Laws of rlplay/insight/saliency.py: slopes are finite differences, what is not used is not shown,
Grad-CAM is CAM where that is defined, and climbing climbs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlplay.insight import saliency


class Pooled(nn.Module):
    """One convolution, the mean over all places, and a linear layer."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder()
        self.last = nn.Linear(5, num_classes)

    def forward(self, picture: Tensor) -> Tensor:
        return self.last(self.encoder(picture)[-1].mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 5, 3, padding=1)

    def forward(self, picture: Tensor) -> list[Tensor]:
        return [torch.relu(self.layer(picture))]


@pytest.fixture
def net() -> Pooled:
    return Pooled().requires_grad_(False)


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(1))


def test_gradient_is_what_finite_differences_say(net, picture):
    net, picture = net.double(), picture.double()

    def judge(x: Tensor) -> Tensor:
        return saliency.margin(net(x).sin(), torch.zeros(len(x), dtype=torch.int64))[:, None]

    found = saliency.gradient(judge, picture[None])[0]
    step = 1e-6 * torch.eye(picture.numel()).double().reshape(-1, *picture.shape)
    slope = (judge(picture + step) - judge(picture - step))[:, 0] / 2e-6
    assert torch.allclose(found.flatten(), slope, atol=1e-8)
    assert found.abs().max() > 1e-4


def test_margin_is_the_log_odds_and_never_flat_where_the_probability_is():
    scores = torch.tensor([[1.0, 2.0, -1.0], [0.0, 200.0, 0.0]], requires_grad=True)
    chosen = torch.tensor([1, 1])
    found = saliency.margin(scores, chosen)
    share = scores.softmax(1)[:, 1]
    assert found[0].item() == pytest.approx(torch.logit(share[0]).item(), rel=1e-5)
    (slope,) = torch.autograd.grad(found.sum(), scores)
    assert slope[1].tolist() == pytest.approx([-0.5, 1, -0.5])
    (flat,) = torch.autograd.grad(scores.softmax(1)[1, 1], scores)
    assert not flat[1].any()  # negative control: this one says nothing


def test_smoothed_gradient_of_a_linear_function_is_its_gradient(picture):
    weight = torch.randn(picture.shape, generator=torch.Generator().manual_seed(2))

    def judge(x: Tensor) -> Tensor:
        return (x * weight).sum((1, 2, 3))[:, None]

    found = saliency.smooth_gradient(judge, picture, torch.Generator().manual_seed(3))
    assert torch.allclose(found, weight, atol=1e-6)


def corner(x: Tensor) -> Tensor:
    """Two judgements: of the first rows and columns alone, and of one pixel far from them."""
    return torch.stack([x[:, :, :4, :3].sum((1, 2, 3)), 2 * x[:, 0, 15, 15]], 1)


def test_occlusion_shows_what_is_used_and_nothing_else():
    picture = torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(1)) + 0.5
    found = saliency.occlusion(corner, picture, torch.zeros_like(picture), side=3)
    first, second = found
    assert first[:4, :3].min() > 0
    assert not first[6:].any()
    assert not first[:, 5:].any()
    assert second[15, 15] == second.max() > 0
    assert not second[:12].any()
    nothing = saliency.occlusion(corner, picture, picture, side=3)
    assert not nothing.any()  # negative control: what is replaced by itself


def test_occlusion_by_one_pixel_is_the_weight_of_each_pixel_of_a_linear_function():
    random = torch.Generator().manual_seed(1)
    weight, picture = torch.randn(1, 6, 5, generator=random), torch.rand(1, 6, 5, generator=random)

    def judge(x: Tensor) -> Tensor:
        return (x * weight).sum((1, 2, 3))[:, None]

    found = saliency.occlusion(judge, picture, torch.zeros_like(picture), side=1)
    assert torch.allclose(found[0], (weight * picture)[0], atol=1e-5)


def test_blurring_shows_what_is_used():
    random = torch.Generator().manual_seed(1)
    picture = torch.rand(2, 40, 40, generator=random)
    first, second = saliency.blurring(corner, picture).abs()
    for values, (row, column) in ((first, (2, 2)), (second, (15, 15))):
        assert values[row, column] > 0.5 * values.max() > 0
        assert values[30:, 30:].max() < 1e-4 * values.max()
    flat = torch.full_like(picture, 0.3)
    assert saliency.blurring(corner, flat).abs().max() < 1e-5  # negative control: no blur to see


def test_blur_keeps_the_sum_of_a_dot_and_what_is_flat():
    dot = torch.zeros(1, 1, 31, 31)
    dot[..., 15, 15] = 1
    found = saliency.blur(dot, 2.0)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    rows = torch.arange(31.0) - 15
    assert (found[0, 0].sum(1) * rows**2).sum().item() == pytest.approx(4, rel=0.05)
    assert torch.allclose(saliency.blur(torch.full((1, 2, 9, 9), 0.4), 1.5), torch.tensor(0.4))


def test_grad_cam_is_cam_for_a_linear_layer_after_the_mean(net, picture):
    """Zhou et al. 2016: the map of a class is the sum of the feature maps, by its weights."""
    for number in range(3):
        found = saliency.grad_cam(lambda x, n=number: net(x)[:, n : n + 1], net.encoder, picture)
        features = net.encoder(picture[None])[0][0]  # [5, h, w]
        cam = torch.einsum("k,khw->hw", net.last.weight[number], features)
        assert found is not None
        assert torch.allclose(found, cam.clamp(min=0) / cam.numel(), atol=1e-7)
    with torch.no_grad():
        net.last.weight[1] = 0
    silent = saliency.grad_cam(lambda x: net(x)[:, 1:2], net.encoder, picture)
    assert silent is not None
    assert not silent.any()  # negative control: a class that uses nothing


def test_grad_cam_wants_a_map_that_tells_places_apart(net):
    small = torch.rand(2, 3, 3)
    assert saliency.grad_cam(lambda x: net(x)[:, :1], net.encoder, small) is None


@pytest.mark.parametrize("jitter", [0, 2])
def test_maximising_raises_each_score_and_keeps_to_the_range_of_pixels(net, jitter):
    random = torch.Generator().manual_seed(5)
    start = torch.rand(3, 2, 20, 20, generator=random)
    index = torch.arange(3)[:, None]

    def judge(x: Tensor) -> Tensor:
        return net(x).gather(1, index)

    found = saliency.maximise(judge, start, random, num_steps=40, jitter=jitter)
    assert (judge(found) > judge(start)).all()
    assert found.min() >= 0
    assert found.max() <= 1
    again = torch.Generator().manual_seed(5)
    same = torch.rand(3, 2, 20, 20, generator=again)
    assert torch.equal(found, saliency.maximise(judge, same, again, num_steps=40, jitter=jitter))


def test_pictures_fade_where_nothing_speaks_for_them(net):
    random = torch.Generator().manual_seed(5)
    start = torch.rand(1, 2, 20, 20, generator=random)

    def judge(x: Tensor) -> Tensor:
        return x[:, :, :10].sum((1, 2, 3))[:, None]

    found = saliency.maximise(judge, start, random, decay=1.0, jitter=0, sigma=0)
    assert found[:, :, :10].mean() > 0.9
    assert found[:, :, 10:].max() < 1e-3
    kept = saliency.maximise(judge, start, random, decay=0.0, jitter=0, sigma=0)
    assert torch.equal(kept[:, :, 10:], start[:, :, 10:])


def test_windows_cover_every_pixel():
    for length, side, stride in ((20, 3, 1), (21, 5, 4), (8, 8, 3), (9, 2, 2)):
        starts = saliency.starts(length, side, stride)
        covered = {start + i for start in starts for i in range(side)}
        assert covered == set(range(length))
        assert np.all(np.diff(starts) >= 0)
