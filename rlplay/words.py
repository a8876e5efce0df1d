"""The words of the command line: how they are taken off it, and how it answers."""

from __future__ import annotations

import os
import sys
from typing import Any

from rlplay.core import Mistake


def positional(words: list[str]) -> str:
    """Take the RUN off the front of `words`; `last` where it is left out."""
    return words.pop(0) if words and not words[0].startswith("-") else "last"


def flag(words: list[str], name: str) -> bool:
    """Take a switch out of `words`."""
    if name not in words:
        return False
    words.remove(name)
    return True


def option(words: list[str], name: str) -> str:
    """Take `name VALUE` or `name=VALUE` out of `words`; empty where it is not there."""
    for i, word in enumerate(words):
        if word.startswith(f"{name}="):
            del words[i]
            return word.split("=", 1)[1]
        if word == name:
            if i + 1 == len(words) or words[i + 1].startswith("--"):
                raise Mistake(f"{name} needs a value")
            del words[i]
            return words.pop(i)
    return ""


def say(sentence: str) -> None:
    """Print a line at once. Where its reader has gone, work on without one."""
    try:
        print(sentence, flush=True)
    except BrokenPipeError:
        mute()


def mute() -> None:
    """Send what is still to be printed nowhere: its reader has gone, as `| head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def suggest(*commands: str) -> None:
    say("next:" + "".join(f"\n  rlplay {command}" for command in commands))


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows of the same keys as aligned columns under these keys."""
    lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    return "\n".join(padded)


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if 0 < abs(value) < 1 else f"{value:.1f}"
    return str(value)


def asks_help(words: list[str]) -> bool:
    return "-h" in words or "--help" in words
