"""Example pictures that our own code draws: symbols, toy scenes, charts and pages. Kept as PNG files once drawn."""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from mllm_embed.toy_shapes import scenes
from mllm_embed_demo.drawn_pages import CHARTS, PAGES, draw_chart, draw_page
from mllm_embed_demo.pictures import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION = 1
"""Part of the folder's name; raise it when the drawings change."""
CREDIT = "drawn by mllm-embed"
_SCENES = 10
_SIDE = 224

SYMBOLS = {
    "☀ sun": "#f5a300", "☁ cloud": "#7f93a8", "☂ umbrella": "#8e44ad", "☃ snowman": "#3498db", "☄ comet": "#d35400",
    "★ star": "#f1b40f", "☎ telephone": "#2c3e50", "☕ hot drink": "#7b4a2d", "☘ shamrock": "#239b56",
    "☠ skull and crossbones": "#2c2c2c", "☢ radioactive sign": "#b7950b", "☮ peace sign": "#16a085",
    "☯ yin and yang": "#111111", "☺ smiling face": "#e08e0b", "☹ frowning face": "#2471a3", "☾ moon": "#b9770e",
    "♛ chess queen": "#1c2833", "♞ chess knight": "#4a235a", "♥ red heart": "#d62839", "♠ spade": "#17202a",
    "♣ club": "#145a32", "♫ musical notes": "#6c3483", "♻ recycling sign": "#1e8449", "⚑ flag": "#c0392b",
    "⚓ anchor": "#1b4f72", "⚔ crossed swords": "#566573", "⚖ scales": "#7e5109", "⚙ gear": "#5d6d7e",
    "⚠ warning sign": "#e67e22", "⚡ lightning": "#f39c12", "✂ scissors": "#c2185b", "✈ aeroplane": "#2e86c1",
    "✉ envelope": "#a04000", "✏ pencil": "#ca6f1e", "❄ snowflake": "#5dade2", "✿ flower": "#e84393",
    "🐭 mouse": "#839192", "🐮 cow": "#6e2c00", "🐱 cat": "#dc7633", "🐵 monkey": "#935116",
    "😂 face with tears of joy": "#d4a017", "😴 sleeping face": "#5b6abf", "😡 angry face": "#cb4335",
    "⚄ die showing five": "#922b21",
}  # fmt: skip
"""A glyph of the DejaVu font with its name, and the colour it is drawn in."""


class Drawing(NamedTuple):
    """A picture to draw: file name without suffix, title, and the pen."""

    name: str
    title: str
    draw: Callable[[], PIL.Image.Image]


def pictures(folder: Path) -> list[Picture]:
    """Return all drawn pictures; those that `folder` lacks are drawn now."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for drawing in _drawings():
        path = folder / f"{drawing.name}.png"
        if not path.exists():
            part = path.with_suffix(f".{os.getpid()}.part")
            drawing.draw().save(part, "PNG")
            part.replace(path)
        found.append(Picture.of(path, title=drawing.title, credit=CREDIT))
    return found


def _drawings() -> Iterator[Drawing]:
    font = find_font()
    for number, (label, color) in enumerate(SYMBOLS.items()):
        glyph, _, name = label.partition(" ")
        yield Drawing(f"symbol-{number:02}", name.capitalize(), partial(_symbol, font, glyph, color))
    for number, scene in enumerate(scenes(_SCENES, seed=7, side=_SIDE, max_objects=2)):
        yield Drawing(f"scene-{number:02}", scene.caption.capitalize(), scene.image.copy)
        yield Drawing(f"scene-{number:02}-edited", scene.edit.caption.capitalize(), scene.edit.image.copy)
    for name in CHARTS:
        yield Drawing(f"chart-{name}", CHARTS[name].title, partial(draw_chart, name))
    for name, page in PAGES.items():
        yield Drawing(f"page-{name}", page.splitlines()[0], partial(draw_page, name, font))


def find_font() -> Path:
    """Return the DejaVu Sans file that matplotlib carries; raises FileNotFoundError without matplotlib."""
    spec = find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return file
    raise FileNotFoundError("the DejaVu font is missing: install matplotlib, or `mllm-embed[demo]`")


def _symbol(font: Path, glyph: str, color: str) -> PIL.Image.Image:
    """Draw one glyph, centred by its ink and filling the same share of every picture."""
    image = PIL.Image.new("RGB", (_SIDE, _SIDE), "white")
    pen = PIL.ImageDraw.Draw(image)
    probe = PIL.ImageFont.truetype(font, 200)
    left, top, right, bottom = probe.getbbox(glyph)
    size = 200 * 0.72 * _SIDE / max(right - left, bottom - top)
    sized = PIL.ImageFont.truetype(font, size)
    left, top, right, bottom = sized.getbbox(glyph)
    pen.text(((_SIDE - left - right) / 2, (_SIDE - top - bottom) / 2), glyph, font=sized, fill=color)
    return image
