"""Run folders become pictures (being written: signatures first)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rlplay.core import Range

if TYPE_CHECKING:
    from rlplay.run import Run


@dataclass(frozen=True)
class Config:
    """What `rlplay plot` draws, and how."""

    metrics: tuple[str, ...] = ()
    """What to draw, a panel for each, such as rollout/reward, or, without a slash, a number known
    by episode, such as score; empty for what suits the runs."""
    x: Literal["", "steps", "steps_per_env", "episodes", "seconds", "value"] = ""
    """What to draw it against; "value" is the varied setting's; empty for what suits the metric."""
    title: str = ""
    """Written above."""
    x_title: str = ""
    """What x is, where its own name says too little; such as the name of the varied setting."""
    first: Annotated[int, Range(0)] = 0
    """Only so many points from the beginning (of a study: the mean of so many); 0 for all."""
    smooth: Annotated[int, Range(1)] = 1
    """Points in a moving average."""
    low: float | None = None
    """Lower end of the y axis."""
    high: float | None = None
    """Upper end of the y axis."""
    log_x: bool = False
    """A logarithmic x axis: powers of ten, or of two for the values of a setting."""


def draw(
    runs: Sequence[Run] | Mapping[str, Sequence[Run]],
    folder: Path,
    config: Config = Config(),
    name: str = "plot",
) -> list[Path]:
    """Draw runs, grouped by `group` or as given by label; write folder/name.png and .svg."""
    raise NotImplementedError


def draw_study(
    points: Mapping[str, Sequence[tuple[float, Sequence[Run]]]],
    folder: Path,
    config: Config = Config(),
    name: str = "plot",
) -> list[Path]:
    """Draw a parameter study: by label, (value of the setting, its runs)."""
    raise NotImplementedError
