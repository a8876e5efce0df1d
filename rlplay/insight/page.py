"""Explanations as one page: pictures beside it in its folder, nothing from elsewhere, light or dark
as the reader's screen is, and as narrow as a phone. It knows no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple


class Figure(NamedTuple):
    """A picture or a film."""

    file: str
    """Its name in the page's folder."""
    caption: str


class Exhibit(NamedTuple):
    """One explanation."""

    title: str
    text: str
    """What it shows, how it was made and by whom first."""
    figures: Sequence[Figure] = ()
    table: Sequence[Sequence[str]] = ()
    """Rows of cells; those of heads do not begin with a digit."""


STYLE = """
:root { color-scheme: light dark; --ink: #1d2130; --faint: #5d6579; --paper: #fbfbfd;
  --rule: #dfe2ea; --card: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceff6; --faint: #9aa3b8; --paper: #0f111a;
  --rule: #2a2f42; --card: #171a27; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .4rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .4rem; border-top: 1px solid var(--rule);
  padding-top: 1.2rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.about, figcaption, nav { color: var(--faint); }
nav a { color: inherit; margin-right: .9rem; white-space: nowrap; }
figure { margin: 1rem 0; }
figcaption { font-size: .875rem; margin-top: .35rem; max-width: 46rem; }
img, video { display: block; max-width: 100%; height: auto; border-radius: 6px; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule);
  border-radius: 6px; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  width: 100%; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; }
th { color: var(--faint); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
tr + tr { border-top: 1px solid var(--rule); }
"""


def page(title: str, about: str, exhibits: Sequence[Exhibit], sizes: Mapping[str, str]) -> str:
    """Return the page's HTML. `sizes` says in attributes how large each picture is, by file."""
    links = " ".join(
        f'<a href="#part{i}">{escape(exhibit.title)}</a>' for i, exhibit in enumerate(exhibits)
    )
    body = "\n".join(section(i, exhibit, sizes) for i, exhibit in enumerate(exhibits))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="about">{escape(about)}</p>
<nav>{links}</nav>
{body}
</body>
</html>
"""


def section(number: int, exhibit: Exhibit, sizes: Mapping[str, str]) -> str:
    parts = [
        f'<h2 id="part{number}">{escape(exhibit.title)}</h2>',
        f"<p>{escape(exhibit.text)}</p>",
    ]
    for file, caption in exhibit.figures:
        place = f'src="{escape(file)}" {sizes.get(file, "")}'
        if file.endswith(".mp4"):
            shown = f"<video {place} controls loop muted playsinline></video>"
        else:
            picture = f'<img {place} alt="{escape(caption)}">'
            shown = f'<a href="{escape(file)}">{picture}</a>'  # alone, a phone can enlarge it
        parts.append(f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>")
    if exhibit.table:
        lines = []
        for row in exhibit.table:
            kind = "td" if row[0][:1].isdigit() else "th"
            cells = "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row)
            lines.append(f"<tr>{cells}</tr>")
        parts.append('<div class="scroll"><table>' + "\n".join(lines) + "</table></div>")
    return "\n".join(parts)
