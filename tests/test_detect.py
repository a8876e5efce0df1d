"""Laws of rlplay/perception/detect.py and what it is made of."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import torch

from rlplay.core import Mistake
from rlplay.nets import backbones
from rlplay.nets.detectors import Found, Truth
from rlplay.nets.optimize import Optimizer
from rlplay.perception import average_precision, detect, framed
from rlplay.perception.augment import Config as Augmentation
from rlplay.perception.average_precision import AveragePrecision
from rlplay.perception.source import SPLITS, Source

pytest.importorskip("torchvision")
pytest.importorskip(average_precision.BACKEND)
KINDS = ("background", "tall", "wide", "dot")
SIZES = {1: (3, 12), 2: (12, 5), 3: (2, 2)}  # width, height
COLOURS = {1: (200, 40, 40), 2: (40, 200, 40), 3: (200, 40, 40)}
ENCODER = backbones.Config("impala", width=0.5)


def rectangles(num: int = 8, size: int = 40) -> Source:
    """Return pictures with one to three rectangles, each in a strip of its own. Tall ones and dots
    have one colour."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 60, (num, 3, size, size), dtype=np.uint8)
    mask = np.zeros((num, size, size), np.uint8)
    boxes, kind = np.zeros((num, 3, 4), np.float32), np.zeros((num, 3), np.int64)
    for i in range(num):
        for k in range(1 + i % 3):
            kind[i, k] = random.integers(1, 4)
            wide, tall = SIZES[kind[i, k]]
            left = random.integers(0, size - wide)
            top = k * size // 3 + random.integers(0, size // 3 - tall + 1)
            boxes[i, k] = left, top, left + wide, top + tall
            mask[i, top : top + tall, left : left + wide] = kind[i, k]
        for number, colour in COLOURS.items():
            picture[i][:, mask[i] == number] = np.array(colour, np.uint8)[:, None]
    arrays = {"picture": picture, "boxes": boxes, "kind": kind, "mask": mask}
    return Source("rectangles", arrays, dict.fromkeys(SPLITS, np.arange(num)), kinds=KINDS)


def changed(**arrays: Any) -> Source:
    source = rectangles()
    return dataclasses.replace(source, arrays={**source.arrays, **arrays}, wanted={"picture"})


def whole(task: detect.Detect) -> dict[str, torch.Tensor]:
    return next(task.batches("train", 100))


def learned(task: detect.Detect, num: int, rate: float) -> dict[str, float]:
    batch = whole(task)
    adam = torch.optim.Adam(task.parameters(), rate)
    for _ in range(num):
        adam.zero_grad()
        task.loss(batch)[0].backward()
        adam.step()
    with torch.inference_mode():
        return task.eval().examine([batch])


def test_it_learns_a_few_rectangles_by_heart_to_the_pixel():
    torch.manual_seed(0)
    task = detect.Config(encoder=ENCODER, width=16).make(rectangles(6, 36))
    before = learned(task, 0, 0.0)
    after = learned(task.train(), 120, 3e-3)
    assert before["map50"] < 0.1
    assert after["map50"] > 0.99
    assert after["map"] > 0.6
    with torch.inference_mode():
        found, there = task.find(whole(task)["picture"]), detect.truth(whole(task))
        drawn = task.draw(whole(task))["boxes"]
    for one, kind in zip(found, there.kind, strict=True):
        assert sorted(detect.sure(one).kind.tolist()) == sorted(kind[kind > 0].tolist())
    assert (drawn == np.array(framed.ink(1))).all(2).any()


@pytest.mark.parametrize("kind", ["fcos", "faster_rcnn", "mask_rcnn"])
def test_every_kind_has_a_loss_that_every_weight_can_lower(kind):
    torch.manual_seed(0)
    task = detect.Config(kind=kind, encoder=ENCODER, width=8, centreness=True).make(rectangles())
    loss, parts = task.loss(whole(task))
    assert loss.isfinite()
    assert loss.item() == pytest.approx(sum(part.item() for part in parts.values()), rel=1e-5)
    loss.backward()
    still = [k for k, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    names = [name for name, _ in task.named_parameters()]
    assert sum("encoder" in name for name in names) == len(list(task.encoder.parameters()))
    assert sum("encoder" in name for name in task.state_dict()) == len(task.encoder.state_dict())


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn"])
def test_two_stages_learn_beside_bfloat16_with_their_own_part_in_float32(kind):
    torch.manual_seed(0)
    config = detect.Config(kind=kind, encoder=ENCODER, width=8, stride=4, anchors=(3, 8), hidden=32)
    task = config.make(rectangles(3))
    optimizer = Optimizer(task, torch.bfloat16, 3e-3, 1e-8, 10.0)
    dtypes = {name.split(".")[1]: p.dtype for name, p in task.detector.named_parameters()}
    assert dtypes["proposals"] == dtypes["regions"] == torch.float32
    assert next(task.encoder.parameters()).dtype == torch.bfloat16
    losses = []
    for _ in range(8):
        loss, _ = task.loss(whole(task))
        optimizer.step(loss)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    with torch.inference_mode():
        found = task.eval().find(whole(task)["picture"])
    for one in found:
        assert one.boxes.dtype == torch.float32
        if kind == "mask_rcnn":
            assert one.mask is not None
            assert one.mask.shape == (len(one.boxes), 40, 40)


# Average precision.


def random_boxes(random: np.random.Generator, num: int) -> np.ndarray:
    corner = random.integers(0, 20, (num, 2))
    return np.concatenate([corner, corner + random.integers(3, 12, (num, 2))], 1)


def precision_by_hand(found: list, there: list, kind: int, share: float) -> float:
    """Return the average precision of a kind, for pictures of (boxes, kinds[, scores]), the long
    way."""
    rows, count = [], 0
    for (boxes, kinds, scores), (true, true_kinds) in zip(found, there, strict=True):
        free = [box for box, k in zip(true, true_kinds, strict=True) if k == kind]
        count += len(free)
        for i in np.argsort(-scores, kind="stable"):
            if kinds[i] != kind:
                continue
            shares = [intersection_over_union(boxes[i], box) for box in free]
            right = bool(shares) and max(shares) >= share
            if right:
                free.pop(int(np.argmax(shares)))
            rows.append((scores[i], right))
    rows.sort(key=lambda row: -row[0])
    right = np.cumsum([row[1] for row in rows])
    precision, recall = right / np.arange(1, len(rows) + 1), right / count
    best = [precision[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(best))


def intersection_over_union(one: np.ndarray, other: np.ndarray) -> float:
    inner = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    sizes = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return float(np.prod(inner) / (sum(sizes) - np.prod(inner)))


def measured(found: list, truths: list, most: int = 300) -> dict[str, float]:
    precision = AveragePrecision(KINDS, most)
    for (boxes, kinds, scores), (true, true_kinds) in zip(found, truths, strict=True):
        boxes, scores, kinds = (torch.from_numpy(part) for part in (boxes, scores, kinds))
        there = Truth(torch.from_numpy(true)[None].float(), torch.from_numpy(true_kinds)[None])
        precision.add([Found(boxes.float(), scores.float(), kinds)], there)
    return precision.result()


def test_average_precision_is_that_of_a_second_implementation():
    random = np.random.default_rng(0)
    found, there = [], []
    for _ in range(12):
        true, kinds = random_boxes(random, 6), random.integers(1, 3, 6)
        moved = true + random.integers(-1, 2, true.shape)  # some of it right
        boxes = np.concatenate([moved, random_boxes(random, 6)])
        said = np.concatenate([kinds, random.integers(1, 4, 6)])
        found.append((boxes, said, random.permutation(12) / 12 + random.random(12) / 1000))
        there.append((true, kinds))
    metrics = measured(found, there)
    each = {
        (kind, share): precision_by_hand(found, there, kind, share)
        for kind in (1, 2)
        for share in np.arange(50, 100, 5) / 100
    }
    assert 0.2 < metrics["map50"] < 0.95
    for kind in (1, 2):
        assert metrics[f"ap50_{KINDS[kind]}"] == pytest.approx(each[kind, 0.5], abs=1e-4)
    assert metrics["map50"] == pytest.approx((each[1, 0.5] + each[2, 0.5]) / 2, abs=1e-4)
    assert metrics["map"] == pytest.approx(np.mean(list(each.values())), abs=1e-4)
    assert "ap50_dot" not in metrics  # said to be there, but nowhere to be found


def test_perfect_finds_are_worth_one_and_shifted_ones_nothing():
    random = np.random.default_rng(1)
    there = [(random_boxes(random, 120), random.integers(1, 4, 120))]
    perfect = [(boxes, kinds, np.linspace(1, 0.5, 120)) for boxes, kinds in there]
    shifted = [(boxes + 40, kinds, scores) for boxes, kinds, scores in perfect]
    assert measured(perfect, there)["map"] == pytest.approx(1)
    assert measured(perfect, there, most=30)["map"] < 1  # all 120 do count
    assert measured(shifted, there)["map50"] == 0


def test_of_the_validation_no_more_is_looked_at_than_is_to_be():
    task = detect.Config(num_validated=3).make(rectangles())
    taken = [len(batch["picture"]) for batch in task.batches("validation", 2)]
    assert taken == [2, 1]
    assert sum(len(batch["picture"]) for batch in task.batches("test", 2)) == 8


def test_a_validation_of_which_no_object_is_looked_at_is_one_sentence():
    kind = np.zeros_like(rectangles().arrays["kind"][np.arange(8)])
    kind[3] = 1
    detect.Config(num_validated=0).make(changed(kind=kind))
    with pytest.raises(Mistake, match=r"not a single object in the 2 pictures of .* 'validation'"):
        detect.Config(num_validated=2).make(changed(kind=kind))


# What is no object, and what no label.


def test_objects_half_outside_are_cut_and_those_outside_or_without_area_left_out():
    there = np.zeros((8, 3, 4), np.float32)
    there[:] = [[-5, 30, 10, 60], [40, 0, 50, 10], [7, 7, 7, 12]]
    task = detect.Config().make(changed(boxes=there, kind=np.full((8, 3), 2)))
    found = detect.truth(whole(task))
    assert found.boxes[0, 0].tolist() == [0, 30, 10, 40]
    assert found.kind.tolist() == [[2, 0, 0]] * 8
    assert task.loss(whole(task))[0].isfinite()


def test_boxes_that_augmentation_moves_out_of_the_picture_are_no_objects():
    config = Augmentation(shift=0.9, scale=0.2, rotate=30)
    change, task = config.make(40, 40), detect.Config(encoder=ENCODER).make(rectangles())
    assert change is not None
    torch.manual_seed(0)
    counts = []
    for _ in range(6):
        batch = change(whole(task))
        there = detect.truth(batch)
        sides = (there.boxes[..., 2:] - there.boxes[..., :2])[there.kind > 0]
        assert (sides >= detect.LEAST_SIDE).all()
        assert 0 <= there.boxes.min() <= there.boxes.max() <= 40
        assert task.loss(batch)[0].isfinite()
        counts.append(int((there.kind > 0).sum()))
    assert max(counts) < (whole(task)["kind"] > 0).sum()  # the test moved some out


def test_pictures_without_objects_are_learned_from_too():
    kind = rectangles().arrays["kind"][:].copy()
    kind[4:] = 0
    for name in ("fcos", "mask_rcnn"):
        task = detect.Config(kind=name, encoder=ENCODER, width=8).make(changed(kind=kind))
        empty = {key: tensor[4:] for key, tensor in whole(task).items()}
        loss, _ = task.loss(empty)
        loss.backward()
        assert loss.isfinite()
    assert "not to be seen there" in task.sentence({"map50": 1.0, "map": 1.0, "ap50_tall": 1.0})


KIND = rectangles().arrays["kind"][:]
BOXES = rectangles().arrays["boxes"][:]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"kind": KIND * 3}, "kind 9, but their kinds are numbered 0 (none) to 3"),
        ({"kind": -KIND}, "not a single object"),
        ({"kind": KIND - 1}, "kind -1, but their kinds are numbered 0 (none) to 3"),
        ({"kind": 0 * KIND}, "not a single object"),
        ({"boxes": BOXES * np.nan}, "the edges [nan, nan, nan, nan]"),
        ({"boxes": BOXES[..., [2, 1, 0, 3]]}, "must be left, top, right and bottom"),
    ],
)
def test_labels_that_are_none_are_one_sentence(arrays, words):
    with pytest.raises(Mistake) as caught:
        whole(detect.Config(encoder=ENCODER).make(changed(**arrays)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "kind"), [("boxes", "fcos"), ("kind", "fcos"), ("mask", "mask_rcnn")]
)
def test_data_without_a_label_are_one_sentence(missing, kind):
    source = rectangles()
    arrays = {name: array for name, array in source.arrays.items() if name != missing}
    with pytest.raises(Mistake, match=f"learns from the {missing} of every picture"):
        detect.Config(kind=kind).make(dataclasses.replace(source, arrays=arrays))


@pytest.mark.parametrize("module", ["torchvision", "torchmetrics", "faster_coco_eval"])
def test_missing_module_is_one_sentence(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Mistake, match=f"^the task detect needs the module '{module}'.*perc"):
        detect.Config().make(rectangles())


def test_torchvision_of_another_torch_is_one_sentence(monkeypatch):
    import torchvision

    def broken(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    with pytest.raises(Mistake, match="torchvision does not work with the installed torch"):
        detect.Config().make(rectangles())
