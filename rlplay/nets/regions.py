"""Two-stage detectors on any encoder: Faster R-CNN (Ren et al. 2015) and, with masks, Mask R-CNN
(He et al. 2017), of torchvision's parts.

First every location proposes boxes that may hold an object; then what lies in the surest of them is
looked at once more, to say what it is and where exactly. Pictures keep their size, and what
torchvision would do to their brightness is left to the encoder. torchvision's part computes in
float32 whatever the rest of the network does, for its matching and its pooling of regions need it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlplay.nets.detectors import Detector, Found, Neck, Truth

RATIOS = (0.5, 1.0, 2.0, 4.0)  # height over width: shots and paddles are tall
PROPOSED, LOOKED_AT = 1000, 500  # boxes a picture, before and after what overlaps is left out
LEARNED_FROM = 256  # of these, in training
POOLED, POOLED_MASK = 7, 14  # locations a side of what is cut out of the map for a box, for a mask
MASK_SURE = 0.5


class RegionCNN(Detector):
    def __init__(
        self,
        neck: Neck,
        width: int,
        num_kinds: int,
        anchors: tuple[float, ...],
        hidden: int,
        masks: bool,
        threshold: float,
        overlap: float,
        most: int,
    ) -> None:
        """`num_kinds` without the background; the rest as in the settings of the task `detect`."""
        super().__init__()
        self.neck = neck
        self.stages = Stages(width, num_kinds, anchors, hidden, masks, threshold, overlap, most)

    def loss(self, picture: Tensor, maps: list[Tensor], truth: Truth) -> dict[str, Tensor]:
        _, parts = self.stages(picture, self.neck(picture, maps), self.neck.stride, told(truth))
        names = {
            "loss_objectness": "proposal_loss",
            "loss_rpn_box_reg": "proposal_edge_loss",
            "loss_classifier": "kind_loss",
            "loss_box_reg": "edge_loss",
            "loss_mask": "mask_loss",
        }
        return {names[name]: part for name, part in parts.items()}

    def find(self, picture: Tensor, maps: list[Tensor]) -> list[Found]:
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        said, _ = self.stages(picture, self.neck(picture, maps), self.neck.stride, None)
        found = []
        for one in said:
            mask = None
            if "masks" in one:
                size = (picture.shape[2], picture.shape[3])
                mask = paste_masks_in_image(one["masks"], one["boxes"], size)[:, 0] > MASK_SURE
            found.append(Found(one["boxes"], one["scores"], one["labels"], mask))
        return found


class Stages(nn.Module):
    """What torchvision does: proposals, and what becomes of them."""

    keep_float32 = True

    def __init__(
        self,
        width: int,
        num_kinds: int,
        anchors: tuple[float, ...],
        hidden: int,
        masks: bool,
        threshold: float,
        overlap: float,
        most: int,
    ) -> None:
        super().__init__()
        from torchvision.models import detection  # not everyone has it, and slow to import
        from torchvision.models.detection import faster_rcnn, mask_rcnn
        from torchvision.models.detection.anchor_utils import AnchorGenerator
        from torchvision.ops import MultiScaleRoIAlign

        settings: dict[str, Any] = {
            "rpn_anchor_generator": AnchorGenerator((anchors,), (RATIOS,)),
            "rpn_pre_nms_top_n_train": PROPOSED,
            "rpn_pre_nms_top_n_test": PROPOSED,
            "rpn_post_nms_top_n_train": LOOKED_AT,
            "rpn_post_nms_top_n_test": LOOKED_AT,
            "box_roi_pool": MultiScaleRoIAlign(["0"], POOLED, 2),
            "box_head": faster_rcnn.TwoMLPHead(width * POOLED**2, hidden),
            "box_predictor": faster_rcnn.FastRCNNPredictor(hidden, num_kinds + 1),
            "box_batch_size_per_image": LEARNED_FROM,
            "box_score_thresh": threshold,
            "box_nms_thresh": overlap,
            "box_detections_per_img": most,
        }
        if masks:
            settings |= {
                "mask_roi_pool": MultiScaleRoIAlign(["0"], POOLED_MASK, 2),
                "mask_head": mask_rcnn.MaskRCNNHeads(width, (width, width), 1),
                "mask_predictor": mask_rcnn.MaskRCNNPredictor(width, width, num_kinds + 1),
            }
        make = detection.MaskRCNN if masks else detection.FasterRCNN
        whole: Any = make(Elsewhere(width), **settings)
        self.proposals, self.regions = whole.rpn, whole.roi_heads

    def forward(
        self, picture: Tensor, shared: Tensor, stride: int, targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Return what is found in each picture and, where there are targets, the parts of the
        loss."""
        from torchvision.models.detection.image_list import ImageList

        num, _, height, width = picture.shape
        tall, wide = (length * stride for length in shared.shape[2:])
        whole = picture[:, :1, :1, :1].expand(num, 1, tall, wide)  # only its size is looked at
        sizes, maps = [(height, width)] * num, {"0": shared.float()}
        boxes, first = self.proposals(ImageList(whole, sizes), maps, targets)
        found, second = self.regions(maps, boxes, sizes, targets)
        return found, first | second


class Elsewhere(nn.Module):
    """Stands for the network that makes the map, which torchvision's classes ask for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_channels = width


def told(truth: Truth) -> list[dict[str, Tensor]]:
    """Return the truth as torchvision wants it told: for each picture the objects that there are,
    and of each its own mask [n, H, W] uint8: of the pixels in its box those of its kind."""
    targets = []
    for i, (boxes, kind) in enumerate(zip(truth.boxes, truth.kind, strict=True)):
        boxes, kind = boxes[kind > 0], kind[kind > 0]
        target = {"boxes": boxes, "labels": kind}
        if truth.mask is not None:
            target["masks"] = own_masks(truth.mask[i], boxes, kind)
        targets.append(target)
    return targets


def own_masks(mask: Tensor, boxes: Tensor, kind: Tensor) -> Tensor:
    """Return which pixels belong to each object, [n, H, W] uint8, given the kind of every pixel [H,
    W]: those in its box that are of its kind."""
    height, width = mask.shape
    row = torch.arange(height, device=mask.device) + 0.5
    column = torch.arange(width, device=mask.device) + 0.5
    left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
    tall = (row > top) & (row < bottom)  # [n, H]
    wide = (column > left) & (column < right)  # [n, W]
    inside = tall[:, :, None] & wide[:, None, :]
    return (inside & (mask == kind[:, None, None])).to(torch.uint8)
