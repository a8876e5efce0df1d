"""What a network looks for and looks at, in pictures: its filters, what excites its units, what it
would like to see, and which pixels moved its judgement; for agents drawn over a film, too.

Every function draws into a folder and returns what the page says of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from rlplay.canvas import Canvas
from rlplay.core import Array
from rlplay.insight import filters, saliency
from rlplay.insight.page import Exhibit, Figure
from rlplay.insight.subject import Subject
from rlplay.palette import NIGHT, SNOW, Ink, digits
from rlplay.perception import gallery
from rlplay.record import encoder

VALUE, CHOICE = (255, 84, 64), (64, 150, 255)  # red and blue, on grey
ACROSS = 10  # classes side by side
TRIES = 3  # beginnings of a picture that is made
STRIP, LARGE = 44, 126  # pixels of one moment of a filter, of a picture
MOVED = " Of stacked frames red is the newest, blue the oldest: what stands still is grey."


def write(folder: Path, name: str, picture: Array) -> str:
    Image.fromarray(picture).save(folder / name, "png", optimize=True)
    return name


def first_filters(subject: Subject, folder: Path, num_units: int) -> Exhibit | None:
    """Draw the weights of the first layer; None where they are none of pictures."""
    channels = subject.pictures.shape[1]
    weight = filters.first_filters(subject.encoder, channels)
    if weight is None:
        return None
    largest = float(np.abs(weight).max())
    order = np.argsort(-np.square(weight).sum((1, 2, 3)), kind="stable")[:num_units]
    order = np.sort(order)
    colours = channels == 3 * subject.num_moments
    strips = []
    for unit in order:
        scaled = weight[unit] / largest
        if colours:
            moments = [np.round(127.5 + 127.5 * m).astype(np.uint8).transpose(1, 2, 0)
                       for m in np.split(scaled, subject.num_moments)]  # fmt: skip
        else:
            moments = list(gallery.diverging(scaled))
        strips.append(strip([gallery.fitted(moment, STRIP) for moment in moments]))
    columns = max(1, 8 // subject.num_moments)
    rows = [strips[i : i + columns] for i in range(0, len(strips), columns)]
    named = [f"unit {unit}" for unit in order]
    captions = [named[i : i + columns] for i in range(0, len(named), columns)]
    sheet = gallery.table(rows, (), (), captions, cell=max(strips[0].shape))
    file = write(folder, "filters.png", sheet)
    scale = (
        f"grey is 0, and the largest weight, {largest:.3f}, is the end of a colour"
        if colours
        else f"red is above 0, blue below, white 0; the ends of the scale are {largest:.3f}"
    )
    beside = (
        f" The {subject.num_moments} moments of the input stand side by side, the oldest on the"
        " left: a filter that is red on the right and blue on the left answers to what appears."
        if subject.num_moments > 1
        else ""
    )
    num, tall, wide = len(weight), *weight.shape[2:]
    which = "all" if len(order) == num else f"the {len(order)} with the largest weights of"
    return Exhibit(
        "First-layer filters",
        f"The weights of {which} {num} filters of the first layer, {tall} x {wide} pixels.{beside}",
        [Figure(file, f"All on one scale: {scale}.")],
    )


def strip(pictures: Sequence[Array]) -> Array:
    """Return pictures [h, w, 3] side by side, two pixels apart."""
    height, width, _ = pictures[0].shape
    line = np.full((height, len(pictures) * (width + 2) - 2, 3), NIGHT, np.uint8)
    for i, one in enumerate(pictures):
        line[:, i * (width + 2) : i * (width + 2) + width] = one
    return line


def excited(
    subject: Subject, folder: Path, layer: int, num_units: int, num_patches: int
) -> Exhibit:
    """Draw what excites the units of a layer most."""
    pictures = subject.pictures[subject.num_first :]
    found = filters.exciting(subject.encoder, pictures, layer, num_units, num_patches)
    largest = max([abs(unit.activations).max() for unit in found.units] + [1e-9])
    rows = [[gallery.shown(p, subject.num_moments) for p in unit.patches] for unit in found.units]
    captions = [[digits(a, largest) for a in unit.activations] for unit in found.units]
    sides = [f"unit {unit.unit}" for unit in found.units]
    table = gallery.table(rows, (), sides, captions, cell=72) if rows else gallery.table([[None]])
    file = write(folder, f"patches-layer{found.number}.png", table)
    (tall, wide), (height, picture_width) = found.field.size, pictures.shape[2:]
    whole = (tall, wide) == (height, picture_width)
    sees = "the whole picture" if whole else f"{tall} x {wide} of {height} x {picture_width} pixels"
    silent = (
        f" {found.num_silent} of them never fire on these {len(pictures):,} pictures."
        if found.num_silent
        else ""
    )
    moved = MOVED if subject.num_moments > 1 else ""
    return Exhibit(
        f"What excites layer {found.number}",
        f"A unit of the encoder's layer {found.number} sees {sees}. Of its {found.num_units} units"
        f" these are the {len(found.units)} that are excited most, each with the places that excite"
        f" it most, at most one in a picture (Zeiler & Fergus 2014).{silent}",
        [Figure(file, f"Below each patch, how much it excites the unit.{moved}")],
    )


def favourites(
    subject: Subject, folder: Path, numbers: Sequence[int], seed: int, num_steps: int, decay: float
) -> Exhibit:
    """Draw for classes or actions the picture that speaks most for each."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.tensor(numbers, device=subject.device)
    is_agent = subject.player is not None
    with torch.no_grad():
        pool = subject.tensor(subject.pictures[subject.num_first :])
        real = torch.cat([relative(subject, part, is_agent) for part in pool.split(256)])

    def judge(pictures: torch.Tensor) -> torch.Tensor:
        return relative(subject, pictures, is_agent).gather(1, index[:, None])

    shape, moments = subject.pictures.shape[1:], subject.num_moments
    jitter = min(shape[1:]) // 20  # pixels: none in the smallest pictures
    tries = []
    for _ in range(TRIES):
        noise = 0.2 * torch.rand((len(numbers), *shape), generator=generator).to(subject.device)
        tries.append(
            saliency.maximise(judge, noise, generator, num_steps, decay=decay, jitter=jitter)
        )
    with torch.no_grad():
        own, which = torch.stack([judge(some)[:, 0] for some in tries]).max(0)  # [K]
        drawn = torch.stack(tries)[which, torch.arange(len(which), device=which.device)]
        said = subject.scores(drawn).argmax(1)
    pixels = np.round(255 * drawn.cpu().numpy()).astype(np.uint8)
    best, places = real[:, index].max(0)
    names = [subject.names[number] for number in numbers]
    largest = float(torch.cat([own, best]).abs().max())
    scored = [[digits(x, largest) for x in scores.tolist()] for scores in (own, best)]
    real_ones = [subject.pictures[subject.num_first + i] for i in places.tolist()]
    pairs = [[gallery.shown(one, moments) for one in some] for some in (pixels, real_ones)]
    rows: list[list[Array | None]] = []
    captions: list[list[str]] = []
    if moments > 1 and shape[0] == moments:
        heads = [*(f"moment {i + 1}" for i in range(moments)), "all in one", "best real one"]
        for i, picture in enumerate(pixels):
            shown = [gallery.shown(moment[None]) for moment in picture]
            rows.append([*shown, pairs[0][i], pairs[1][i]])
            captions.append([""] * moments + [scored[0][i], scored[1][i]])
        sheet = gallery.table(rows, heads, names, captions, LARGE)
    else:
        for start in range(0, len(numbers), ACROSS):
            for some, told in zip(pairs, scored, strict=True):
                end = start + ACROSS
                rows.append([*some[start:end]])
                words = zip(names[start:end], told[start:end], strict=True)
                captions.append([f"{name}: {score}" for name, score in words])
        sides = ["made", "best real one"] * (len(rows) // 2)
        sheet = gallery.table(rows, (), sides, captions, cell=72)
    file = write(folder, "favourites.png", sheet)
    kind = "action" if is_agent else "class"
    score = "score above the mean of all actions" if is_agent else "score before the softmax"
    above, taken = int((own > best).sum()), int((said == index).sum())
    moved = " moved by a pixel or two and" * bool(jitter)
    return Exhibit(
        f"What it would like to see for each {kind}",
        f"From noise, the best of {TRIES} times {num_steps} steps up the {score} while the picture"
        f" fades: a(x) - lambda ||x||^2,{moved} blurred now and then (Simonyan et al. 2014;"
        " Yosinski et al. 2015)."
        f" {taken} of {len(numbers)} are taken for the {kind} that they were made for, and {above}"
        " score higher than the best real picture, which stands beside them.",
        [Figure(file, f"Below, the {score}.{MOVED if moments > 1 else ''}")],
    )


def relative(subject: Subject, pictures: torch.Tensor, is_agent: bool) -> torch.Tensor:
    """Return the scores [B, A]; an agent's above their mean, for only differences matter to it."""
    scores = subject.scores(pictures)
    return scores - scores.mean(1, keepdim=True) if is_agent else scores


def looked_at(subject: Subject, folder: Path, index: Sequence[int], seed: int) -> Exhibit:
    """Draw what in some pictures speaks for what was chosen."""
    is_agent = subject.player is not None
    generator = torch.Generator().manual_seed(seed)
    mean = subject.tensor(subject.pictures).mean(0)
    height, width = subject.pictures.shape[2:]
    side = max(2, min(height, width) // 8)
    rows, captions = [], []
    with_cam, sigma = False, 0.02 if is_agent else 0.1  # an agent does not bear more noise
    for number in index:
        picture = subject.pictures[number]
        x, colours = subject.tensor(picture), gallery.shown(picture, subject.num_moments)
        chosen = int(subject.chosen(picture[None])[0])
        judge = subject.choice(chosen)
        slopes = saliency.strength(saliency.gradient(judge, x[None])[0])
        smooth = saliency.strength(saliency.smooth_gradient(judge, x, generator, sigma=sigma))
        hidden = saliency.occlusion(judge, x, mean, side, max(1, side // 2))[0].cpu().numpy()
        cam = saliency.grad_cam(judge, subject.encoder, x)
        row: list[Array | None] = [colours]
        row += [
            gallery.tinted(colours, [(scaled(m.cpu().numpy()), VALUE)]) for m in (slopes, smooth)
        ]
        both = scaled(hidden)
        row.append(gallery.tinted(colours, [(both, VALUE), (-both, CHOICE)]))
        if is_agent:
            moved = saliency.blurring(subject.both(chosen), x).abs().cpu().numpy()
            row += [
                gallery.tinted(colours, [(scaled(moved[0]), CHOICE)]),
                gallery.tinted(colours, [(scaled(moved[1]), VALUE)]),
            ]
        if cam is not None:
            with_cam = True
            row.append(gallery.tinted(colours, [(scaled(cam.cpu().numpy()), VALUE)]))
        rows.append(row)
        captions.append([told(subject, number, chosen)])
    heads = ["picture", "gradient", "smoothed", "occlusion"]
    heads += ["blur: choice", "blur: value"] * is_agent + ["Grad-CAM"] * with_cam
    file = write(folder, "saliency.png", gallery.table(rows, heads, (), captions, cell=126))
    blurred = (
        "; what changes most where a place is blurred, blue for the choice, red for the value"
        " (Greydanus et al. 2018)"
        if is_agent
        else ""
    )
    return Exhibit(
        "Where it looks",
        "What in a picture speaks for what was chosen, measured by its log odds against all else:"
        " the slope at each pixel (Simonyan et al. 2014), the mean slope of 32 noisy neighbours"
        f" (Smilkov et al. 2017), what is lost where {side} x {side} pixels are replaced by the"
        " mean of all pictures, red, or won, blue (Zeiler & Fergus 2014)"
        f"{blurred}; and Grad-CAM (Selvaraju et al. 2017).",
        [
            Figure(
                file,
                "Each map is scaled to its own largest value: compare places, not pictures."
                " Grad-CAM is empty where nothing on its map speaks for the choice; it averages"
                " slopes over all places, which suits networks that do so, too, and others less."
                f"{MOVED if subject.num_moments > 1 else ''}",
            )
        ],
    )


def scaled(values: Array) -> Array:
    """Return a map [h, w] such that all but its largest few values lie in -1..1."""
    return values / max(float(np.quantile(np.abs(values), 0.995)), 1e-12)


def told(subject: Subject, number: int, chosen: int) -> str:
    """Return in words what was chosen for a picture, and what it is."""
    with torch.no_grad():
        scores = subject.scores(subject.tensor(subject.pictures[number : number + 1]))
    share = float(scores.softmax(1)[0, chosen])
    if subject.labels is not None:
        truth = int(subject.labels[number])
        if truth != chosen:
            return f"{subject.names[chosen]}, is {subject.names[truth]}"
        return f"{subject.names[chosen]}  {share:.0%}"
    return f"step {number}: {subject.names[chosen]}"


def film(subject: Subject, folder: Path) -> Exhibit:
    """Film the episode that the agent played, with what moved its choice and its value at every
    moment drawn over it."""
    assert subject.player is not None
    assert subject.episode is not None
    moments, screens = subject.episode
    spec = subject.player.spec
    height, width, _ = screens[0].shape
    maps = []
    for x, chosen in zip(
        subject.tensor(subject.pictures), subject.chosen(subject.pictures), strict=True
    ):
        maps.append(saliency.blurring(subject.both(int(chosen)), x).abs())
    moved = torch.stack(maps)  # [T, 2, h, w]
    ends = torch.quantile(moved.amax((2, 3)), 0.8, dim=0) + 1e-12  # of the scale, one for all time
    moved = (moved / ends[:, None, None]).clamp(0, 1)
    clearest = int(moved.amax((2, 3)).prod(1).argmax())  # of both, much
    canvas = Canvas(screens[0], spec, panel=True)
    score = reward = 0.0
    file = folder / "film.mp4"
    with encoder(file, canvas.image.size, spec.frame_rate) as show:
        for i, moment in enumerate(moments):
            large = F.interpolate(moved[i : i + 1], (height, width), mode="bilinear")[0]
            choice, value = large.cpu().numpy()
            canvas.place(gallery.tinted(screens[i], [(choice, CHOICE), (value, VALUE)]))
            canvas.tell(moment, i, score, reward)
            legend(canvas)
            show(canvas.image)
            if i == clearest:
                canvas.image.save(folder / "film.png", "png", optimize=True)
            reward = float(moment.following.score[0, 0])
            score += reward
    return Exhibit(
        "What moved it while it played",
        f"The first {len(moments)} agent steps of an episode, score {score:g}. At every moment"
        " 14 x 14 places of all frames that the agent sees were blurred, one after the other; blue"
        " is where that changed the log odds of the action it chose, red where it changed the"
        " value it expects, and violet where both (Greydanus et al. 2018). One scale holds for the"
        " whole film, so that a moment without colour is one in which no single place mattered.",
        [Figure(file.name, "The film."), Figure("film.png", "A frame of it.")],
    )


def legend(canvas: Canvas) -> None:
    """Write what the colours mean below the game."""
    words: tuple[tuple[str, Ink], ...] = (("moves its choice", CHOICE), ("moves its value", VALUE))
    font = canvas.fonts[12]
    x, y = 8.0, canvas.image.height - 10.0
    right = x + sum(font.getlength(word) + 26 for word, _ in words)
    canvas.draw.rounded_rectangle((x - 4, y - 18, right, y + 4), 4, NIGHT)
    for word, ink in words:
        canvas.draw.circle((x + 6, y - 7), 5, ink)
        canvas.draw.text((x + 16, y - 7), word, SNOW, font, "lm")
        x += font.getlength(word) + 26
