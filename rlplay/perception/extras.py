"""What comes with the extra `perception`, and what to say where it is missing."""

from __future__ import annotations

from typing import Any

from rlplay.core import Mistake


def torchvision(what: str) -> Any:
    """Return torchvision for `what` needs it. Raises Mistake where it is not installed, or not for
    this torch."""
    try:
        import torchvision
    except ModuleNotFoundError as error:
        raise missing(what, "torchvision") from error
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise unfit() from error
    return torchvision


def unfit() -> Mistake:
    """Return what to say where torchvision was made for another version of torch."""
    return Mistake(
        "the installed torchvision does not work with the installed torch; type `pip install"
        " --upgrade torch torchvision` for two that fit each other"
    )


def missing(what: str, module: str) -> Mistake:
    """Return what to say where a module of the extra `perception` is not installed."""
    return Mistake(
        f"{what} needs the module {module!r}, which is not installed; type"
        " `pip install -e '.[perception]'` in the project's folder"
    )
