"""How well objects are found: average precision, as of COCO (Lin et al. 2014), by torchmetrics.

A box found is right where it overlaps one of its kind that no surer one has taken, by at least a
share of their union. Of each kind the precision is averaged over the recalls 0, 0.01, ..., 1; map50
is the mean over the kinds at a share of 0.5, map that over shares of 0.5, 0.55, ..., 0.95. Kinds
that are nowhere to be found are left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from rlplay.nets.detectors import Found, Truth
from rlplay.perception.extras import missing

BACKEND = "faster_coco_eval"
"""What torchmetrics lets count: 30 times as fast as pycocotools where there are 150 objects."""


class AveragePrecision:
    def __init__(self, kinds: Sequence[str], most: int) -> None:
        """`kinds` with the background first; at most `most` objects a picture count. Raises Mistake
        where a module is missing."""
        for module in ("torchmetrics", BACKEND):
            if not importable(module):
                raise missing("the task detect", module)
        detection = importlib.import_module("torchmetrics.detection")
        self.kinds = kinds
        self.metric: Any = detection.MeanAveragePrecision(
            iou_thresholds=[share / 100 for share in range(50, 100, 5)],  # its own are rounded up
            rec_thresholds=[recall / 100 for recall in range(101)],
            max_detection_thresholds=[1, min(10, most), most],
            extended_summary=True,
            backend=BACKEND,
        )
        self.metric.warn_on_many_detections = False

    def add(self, found: Sequence[Found], truth: Truth) -> None:
        """Count the pictures of a batch."""
        said = [
            {"boxes": one.boxes.cpu(), "scores": one.score.cpu(), "labels": one.kind.cpu()}
            for one in found
        ]
        boxes, kind = truth.boxes.cpu(), truth.kind.cpu()
        there = [
            {"boxes": own[which > 0], "labels": which[which > 0]}
            for own, which in zip(boxes, kind, strict=True)
        ]
        self.metric.update(said, there)

    def result(self) -> dict[str, float]:
        """Return map50, map, and ap50_KIND of every kind that was to be found."""
        whole = self.metric.compute()
        precision = whole["precision"][:, :, :, 0, -1].mean(1)  # [10 shares, kinds]; -1 for none
        numbers = whole["classes"].reshape(-1).tolist()
        there = precision[0] >= 0
        metrics = {
            "map50": float(precision[0, there].mean()),
            "map": float(precision[:, there].mean()),
        }
        for number, counts, value in zip(numbers, there, precision[0], strict=True):
            if counts:
                metrics[f"ap50_{self.kinds[number]}"] = float(value)
        return metrics


def importable(module: str) -> bool:
    """Tell whether a module is there."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
