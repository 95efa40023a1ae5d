"""Example pictures that installed packages carry, with the origin that those state. Nothing is fetched."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Shipped(NamedTuple):
    """A picture inside an installed package: module, path below it, title, credit."""

    module: str
    file: str
    title: str
    credit: str


_SK = "skimage"
_GR = "gradio"
_GR_CREDIT = "shipped with gradio (Apache-2.0); no separate credit is stated"

SHIPPED = (
    Shipped(_SK, "data/astronaut.png", "Astronaut Eileen Collins", "NASA, public domain, via scikit-image"),
    Shipped(_SK, "data/brick.png", "Brick wall", "CC0 Textures, CC0, via scikit-image"),
    Shipped(_SK, "data/camera.png", "Photographer with a tripod", "Lav Varshney, CC0, via scikit-image"),
    Shipped(_SK, "data/cell.png", "Cell floating in saline", "Paul Müller and others, CC0, via scikit-image"),
    Shipped(_SK, "data/chelsea.png", "Chelsea the cat", "Stéfan van der Walt, CC0, via scikit-image"),
    Shipped(_SK, "data/chessboard_GRAY.png", "Checkerboard", "shipped with scikit-image (BSD-3-Clause)"),
    Shipped(
        _SK, "data/clock_motion.png", "Clock, blurred by motion", "Stéfan van der Walt, public domain, via scikit-image"
    ),
    Shipped(_SK, "data/coffee.png", "Cup of coffee", "Rachel Michetti, CC0, via scikit-image"),
    Shipped(
        _SK, "data/coins.png", "Greek coins from Pompeii", "Brooklyn Museum, no known restrictions, via scikit-image"
    ),
    Shipped(_SK, "data/color.png", "Colour wheel", "shipped with scikit-image (BSD-3-Clause)"),
    Shipped(_SK, "data/grass.png", "Grass", "linolafett, CC0, via scikit-image"),
    Shipped(_SK, "data/gravel.png", "Gravel", "CC0 Textures, CC0, via scikit-image"),
    Shipped(_SK, "data/horse.png", "Silhouette of a horse", "Andreas Preuss, CC0, via scikit-image"),
    Shipped(_SK, "data/hubble_deep_field.jpg", "Galaxies in deep space", "NASA, public domain, via scikit-image"),
    Shipped(_SK, "data/ihc.png", "Stained tissue", "CMMI, no known restrictions, via scikit-image"),
    Shipped(_SK, "data/moon.png", "Surface of the moon", "shipped with scikit-image (BSD-3-Clause)"),
    Shipped(
        _SK, "data/motorcycle_left.png", "Red motorcycle in a garage", "Middlebury 2014 stereo set, via scikit-image"
    ),
    Shipped(_SK, "data/page.png", "Scanned page of a book", "shipped with scikit-image (BSD-3-Clause)"),
    Shipped(_SK, "data/retina.jpg", "Human retina", "Mikael Häggström, CC0, via scikit-image"),
    Shipped(_SK, "data/rocket.jpg", "Rocket on its launch pad", "SpaceX, public domain, via scikit-image"),
    Shipped(_SK, "data/text.png", "Handwriting", "Wikipedia, public domain, via scikit-image"),
    Shipped("sklearn", "datasets/images/china.jpg", "Chinese temple", "danielbuechele, CC BY 2.0, via scikit-learn"),
    Shipped("sklearn", "datasets/images/flower.jpg", "Orange dahlia", "vultilion, CC BY 2.0, via scikit-learn"),
    Shipped(
        "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "Portrait of Grace Hopper", "shipped with matplotlib"
    ),
    Shipped(
        "matplotlib", "mpl-data/sample_data/Minduka_Present_Blue_Pack.png", "Blue gift box", "shipped with matplotlib"
    ),
    Shipped(_GR, "media_assets/images/bus.png", "Red bus", _GR_CREDIT),
    Shipped(_GR, "media_assets/images/cheetah.jpg", "Cheetah running", _GR_CREDIT),
    Shipped(_GR, "media_assets/images/cheetah1.jpg", "Face of a cheetah", _GR_CREDIT),
    Shipped(_GR, "media_assets/images/lion.jpg", "Lion on a rock", _GR_CREDIT),
    Shipped(_GR, "media_assets/images/tower.jpg", "Eiffel Tower", _GR_CREDIT),
)


def locate(shipped: Shipped) -> Path | None:
    """Return the picture's file, or None where this version of the package lacks it (or the package is absent)."""
    spec = find_spec(shipped.module)
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        file = Path(folder) / shipped.file
        if file.is_file():
            return file
    return None
