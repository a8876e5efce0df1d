"""Laws of rlplay/nets/detectors.py and rlplay/nets/regions.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rlplay.nets import backbones, detectors
from rlplay.nets.detectors import Fcos, Neck, Truth

STRIDES = (1, 2, 4)
SIDE = 32  # of the pictures, pixels


def boxes(num: int, seed: int = 0, side: int = 20) -> Tensor:
    """Return boxes [num, 4], every other or so a pixel wide."""
    random = np.random.default_rng(seed)
    corner = random.integers(0, SIDE - 1, (num, 2))
    sides = np.maximum(1, random.integers(1, side, (num, 2)) // random.choice([1, 8], (num, 1)))
    return torch.from_numpy(np.concatenate([corner, np.minimum(corner + sides, SIDE)], 1)).float()


def truth(num: int = 12, seed: int = 0) -> Truth:
    kind = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (3, num)))
    return Truth(torch.stack([boxes(num, seed + i) for i in range(3)]), kind)


def assigned_slowly(truth: Truth, size: tuple[int, int], stride: int, radius: float) -> Tensor:
    """Return what `assign` does, location by location and object by object."""
    owner = torch.zeros(len(truth.boxes), *size, dtype=torch.long)
    for b, row, column in np.ndindex(*owner.shape):
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        least = np.inf
        for k, (left, top, right, bottom) in enumerate(truth.boxes[b].tolist()):
            if not truth.kind[b, k]:
                continue
            wide = max(stride / 2, min((right - left) / 2, radius * stride))
            tall = max(stride / 2, min((bottom - top) / 2, radius * stride))
            near = abs(x - (left + right) / 2) <= wide and abs(y - (top + bottom) / 2) <= tall
            area = (right - left) * (bottom - top)
            if near and area <= least:
                owner[b, row, column], least = k + 1, area
    return owner


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("radius", [0.5, 1.5, 100.0])
def test_assignment_is_that_of_a_slow_loop(stride, radius):
    there, size = truth(), (SIDE // stride, SIDE // stride)
    slowly = assigned_slowly(there, size, stride, radius)
    assert torch.equal(detectors.assign(there, size, stride, radius), slowly)
    other = detectors.assign(there, size, stride, radius + 2 * (radius < 100) - 0.6)
    assert not torch.equal(other, slowly) or radius == 100  # the test could fail


def test_every_object_owns_a_location_however_thin():
    alone = boxes(200, side=3)[:, None]
    kind = torch.ones(200, 1, dtype=torch.long)
    for stride in STRIDES:
        size = (SIDE // stride, SIDE // stride)
        owner = detectors.assign(Truth(alone, kind), size, stride, 1.5)
        assert (owner > 0).flatten(1).any(1).all()


def test_no_object_owns_nothing():
    none = Truth(boxes(5)[None], torch.zeros(1, 5, dtype=torch.long))
    assert not detectors.assign(none, (32, 32), 2, 1.5).any()
    empty = Truth(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.long))
    assert not detectors.assign(empty, (32, 32), 2, 1.5).any()


@pytest.mark.parametrize("stride", STRIDES)
def test_decoding_inverts_encoding_wherever_a_box_is_answered_for(stride):
    there = Truth(boxes(300, side=20)[:, None], torch.ones(300, 1, dtype=torch.long))
    owned = detectors.assign(there, (SIDE // stride, SIDE // stride), stride, 1.5) > 0
    which, row, column = owned.nonzero(as_tuple=True)
    at, true = detectors.locations(row, column, stride), there.boxes[which, 0]
    encoded = detectors.encode(true, at, stride)
    inside = encoded > -13  # an edge just where the far side of the cell is has no logarithm
    decoded = detectors.decode(encoded, at, stride)
    assert torch.allclose(decoded[inside], true[inside], atol=1e-4)
    assert torch.allclose(decoded, true, atol=1e-4 * stride + 1e-5)


def test_overlap_is_that_computed_by_hand():
    one = torch.tensor([[0.0, 0, 4, 2], [0, 0, 2, 2], [0, 0, 1, 1], [1, 1, 3, 3]])
    other = torch.tensor([[2.0, 0, 6, 2], [0, 0, 2, 2], [3, 0, 4, 1], [0, 0, 4, 4]])
    # union of the least box around them: all; all; 2 of 4; all
    by_hand = [4 / 12, 1.0, 0.0 - 2 / 4, 4 / 16]
    assert detectors.generalized_iou(one, other).tolist() == pytest.approx(by_hand)
    assert detectors.generalized_iou(other, one).tolist() == pytest.approx(by_hand)


def test_overlap_is_that_of_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    one, other = boxes(100, 1), boxes(100, 2)
    theirs = ops.generalized_box_iou(one, other).diagonal()
    assert torch.allclose(detectors.generalized_iou(one, other), theirs, atol=1e-5)


def test_focal_loss_is_that_of_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    target = (torch.arange(50) % 3 == 0).float()
    theirs = ops.sigmoid_focal_loss(logits, target, 0.25, 2.0)
    assert torch.allclose(detectors.focal(logits, target), theirs, rtol=1e-5)


def test_centreness_is_one_in_the_middle_and_less_elsewhere():
    box = torch.tensor([[2.0, 2.0, 10.0, 10.0]])
    middle, side = torch.tensor([[6.0, 6.0]]), torch.tensor([[3.0, 6.0]])
    assert detectors.centreness(detectors.encode(box, middle, 2)).item() == pytest.approx(1)
    # distances from the far sides of the cell: 2 and 8 pixels, 5 and 5
    found = detectors.centreness(detectors.encode(box, side, 2)).item()
    assert found == pytest.approx((2 / 8) ** 0.5)


@pytest.mark.parametrize("name", ["lenet", "small", "resnet18", "impala", "nature"])
@pytest.mark.parametrize("stride", STRIDES)
def test_neck_gives_one_map_of_its_stride_whatever_the_encoder(name, stride):
    shape = (3, 70, 45)
    encoder = backbones.Config(name, width=0.25).make(shape).eval()
    neck = Neck(encoder, 3, 8, stride).eval()
    picture = torch.rand(2, *shape)
    found = neck(picture, encoder(picture))
    assert found.shape == (2, 8, -(-70 // stride), -(-45 // stride))


def test_of_overlapping_finds_the_surest_is_kept_and_all_are_in_the_picture():
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    encoder = backbones.Config("lenet", width=0.25).make((1, 24, 30))
    neck = Neck(encoder, 1, 8, 2)
    detector = Fcos(neck, 8, 2, 1.5, False, 0.0, 0.5, 20).eval()
    picture = torch.rand(2, 1, 24, 30)
    with torch.no_grad():
        kinds, _, _ = detector(picture, encoder(picture))
        found = detector.find(picture, encoder(picture))
    for i, one in enumerate(found):
        assert len(one.boxes) <= 20
        assert one.score[0] == kinds[i].sigmoid().max()
        assert torch.equal(one.score, one.score.sort(descending=True)[0])
        assert set(one.kind.tolist()) <= {1, 2}
        assert one.boxes.amin() >= 0
        assert one.boxes[:, 2].amax() <= 30
        assert one.boxes[:, 3].amax() <= 24
        for kind in (1, 2):
            own = one.boxes[one.kind == kind]
            shares = [
                detectors.generalized_iou(own[j, None], own[k, None]).item()
                for j in range(len(own))
                for k in range(j)
            ]
            assert max(shares, default=0) <= 0.5 + 1e-6


def test_masks_of_objects_are_the_pixels_of_their_kind_in_their_box():
    from rlplay.nets.regions import own_masks

    mask = torch.tensor([[1, 1, 0, 2], [1, 2, 2, 2], [0, 0, 1, 1]])
    there = torch.tensor([[0.0, 0, 2, 2], [1, 0, 4, 2], [2, 2, 4, 3]])
    found = own_masks(mask, there, torch.tensor([1, 2, 1]))
    assert found.tolist() == [
        [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]],
    ]


def test_proposals_of_regions_lie_over_the_whole_picture():
    pytest.importorskip("torchvision")
    from torchvision.models.detection.image_list import ImageList

    from rlplay.nets.regions import RegionCNN

    shape = (1, 70, 45)  # not a whole number of locations
    encoder = backbones.Config("lenet", width=0.25).make(shape)
    detector = RegionCNN(Neck(encoder, 1, 8, 4), 8, 2, (8.0,), 16, False, 0.05, 0.5, 20).eval()
    seen: list[ImageList] = []
    anchors = detector.stages.proposals.anchor_generator
    anchors.register_forward_hook(lambda _, given, boxes: seen.append(boxes[0]))
    picture = torch.rand(1, *shape)
    with torch.no_grad():
        detector.find(picture, encoder(picture))
    middles = (seen[0][:, :2] + seen[0][:, 2:]) / 2
    assert middles.amax(0).tolist() == [44, 68]  # 12 columns and 18 rows of 4 pixels
