"""Pictures as they could as well have been: shifted, turned, scaled, mirrored, lighter, noisier; by
torchvision's transforms (v2), which masks and boxes follow. Each picture draws its own.

Random numbers come from torch's own generator, which whoever trains seeds for every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from rlplay.core import Mistake, Range
from rlplay.perception.extras import missing

if TYPE_CHECKING:
    from rlplay.perception.task import Batch


FIXED = frozenset(("variables", "squares"))
"""Labels of places that no transform brings along."""


@dataclass(frozen=True)
class Config:
    """How far pictures are changed while they are learned from; by default not at all."""

    shift: Annotated[float, Range(0, 1)] = 0.0
    """At most, share of the picture's sides."""
    rotate: Annotated[float, Range(0, 180)] = 0.0
    """At most, degrees either way."""
    scale: Annotated[float, Range(0, 0.9)] = 0.0
    """At most, share by which things grow or shrink."""
    crop: Annotated[float, Range(0.05, 1)] = 1.0
    """Least share of the area that is cut out and brought to full size; 1 for the whole picture."""
    flip: bool = False
    """Mirror every other picture, where left and right mean the same."""
    brightness: Annotated[float, Range(0, 1)] = 0.0
    """At most, share by which pictures get lighter or darker."""
    noise: Annotated[float, Range(0, 1)] = 0.0
    """Deviation of the noise on every pixel; 1 is from black to white."""

    def make(
        self, height: int, width: int, labels: Collection[str] = ()
    ) -> Callable[[Batch], Batch] | None:
        """Return what changes a batch of pictures of this size; None where nothing is to change.
        Raises Mistake where torchvision is not installed, and where one of the labels would no
        longer be true."""
        if self == Config():
            return None
        moves = replace(self, brightness=0.0, noise=0.0) != Config()
        if fixed := moves and FIXED.intersection(labels):
            raise Mistake(
                f"{', '.join(sorted(fixed))} say where things are and do not follow pictures that"
                " are moved, turned or mirrored: leave all of augmentation but brightness and noise"
            )
        try:
            from torchvision.transforms import v2
        except ImportError as error:
            raise missing("augmentation", "torchvision") from error
        steps: list[Any] = []
        if self.shift or self.rotate or self.scale:
            reach = (1 - self.scale, 1 + self.scale)
            angles = (-self.rotate, self.rotate)
            bilinear = v2.InterpolationMode.BILINEAR
            steps.append(v2.RandomAffine(angles, (self.shift,) * 2, reach, None, bilinear))
        if self.crop < 1:
            steps.append(v2.RandomResizedCrop((height, width), (self.crop, 1), antialias=True))
        if self.flip:
            steps.append(v2.RandomHorizontalFlip())
        if self.brightness:
            from torchvision import tv_tensors

            # v2.ColorJitter would not take pictures of several moments
            steps.append(v2.Lambda(partial(lighter, reach=self.brightness), tv_tensors.Image))
        if self.noise:
            steps.append(v2.GaussianNoise(sigma=self.noise))
        return Augmentation(v2.Compose(steps), height, width)


class Augmentation:
    """Applies a transform to each example of a batch on its own."""

    def __init__(self, transform: Callable[..., Any], height: int, width: int) -> None:
        self.transform = transform
        self.size = (height, width)

    def __call__(self, batch: Batch) -> Batch:
        """Return picture [B, C, H, W] and, where there are, mask [B, H, W] and boxes [B, K, 4]
        (left, top, right, bottom, pixels) changed alike; the rest of the batch as it is."""
        import torch
        from torchvision import tv_tensors

        boxed: Any = tv_tensors.BoundingBoxes
        kinds = {
            "picture": tv_tensors.Image,
            "mask": tv_tensors.Mask,
            "boxes": lambda boxes: boxed(boxes, format="XYXY", canvas_size=self.size),
        }
        names = [name for name in kinds if name in batch]
        examples = zip(*(batch[name] for name in names), strict=True)
        changed = [
            self.transform({name: kinds[name](one) for name, one in zip(names, ones, strict=True)})
            for ones in examples
        ]
        follow = {
            name: torch.stack([one[name].as_subclass(torch.Tensor) for one in changed])
            for name in names
        }
        return batch | follow


def lighter(picture: Any, reach: float) -> Any:
    """Return a picture, a tv_tensor of uint8, with its brightness multiplied by 1 - `reach` to 1 +
    `reach`."""
    import torch
    from torchvision import tv_tensors

    factor = 1 + reach * (2 * torch.rand(1) - 1)
    shown = picture.as_subclass(torch.Tensor).mul(factor).clamp(0, 255).to(picture.dtype)
    return tv_tensors.Image(shown)
