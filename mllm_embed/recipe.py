"""The recipe of an embedder: everything that decides which vector an input gets, besides the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.families import Template, get_family

FORMAT_VERSION = 1
_NEWER = ("video", "soft_prompt", "quantization")
"""What came after the first release, and is left out of files and fingerprints where it is not in use."""
POOLINGS = ("last_token", "mean")
"""Which token states become the vector: the last one, or the mean of all."""
VIDEOS = ("frames", "timed-frames")
"""How a video is read: as pictures in order, or as such with the second of each before it."""
QUANTIZATIONS = ("nf4",)
"""Rounded weights that an adapter may have been trained on: bitsandbytes NF4 with double quantisation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides which vector an input gets, besides the weights."""

    name: str
    """Model name in the API."""
    family: str
    """Backbone family, see `mllm_embed.families`."""
    template: str
    """Prompt format, one of the family's."""
    template_version: int = 1
    """Version of that format; a mismatch is refused, since the vectors would differ."""
    pooling: str = "last_token"
    """Which token state becomes the vector, one of `POOLINGS`."""
    position_mode: str = "mrope"
    """Position ids of visual tokens, one of the family's: `mrope` (time, height and width) or `1d` (as of text)."""
    attention: str = "causal"
    """Attention mask, one of the family's."""
    dimensions: int
    """Full vector width."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Widths that the model was trained to be cut to; empty means any width is allowed."""
    min_pixels: int
    """Pictures with a smaller area are enlarged."""
    max_pixels: int
    """Pictures with a larger area are shrunk."""
    max_tokens: int
    """Longest prompt, visual tokens included."""
    base: str | None = None
    """Hub name or folder of the base model, where the directory holds an adapter only."""
    adapter: str | None = None
    """Folder of the LoRA adapter, relative to the model directory."""
    adapter_sha256: str | None = None
    """SHA-256 of the adapter's weight file."""
    video: str = VIDEOS[0]
    """How a video is read, one of `VIDEOS`."""
    soft_prompt: int = 0
    """How many learned control tokens stand in front of every prompt."""
    quantization: str | None = None
    """Precision of the base's weights that the adapter was trained on, one of `QUANTIZATIONS`; None: as stored."""
    format_version: int = FORMAT_VERSION
    """Version of this file's schema."""

    def to_json(self) -> str:
        """Return the file's text."""
        values = asdict(self)
        newer = {field.name: field.default for field in fields(self) if field.name in _NEWER}
        used = {key: value for key, value in values.items() if key not in newer or value != newer[key]}
        return json.dumps(used, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: Path) -> Recipe:
        """Parse and validate the file's text.

        Raises:
            IncompatibleCheckpoint: not JSON, missing or unknown keys, wrong types, values this version cannot honour.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise IncompatibleCheckpoint(f"{origin} is not valid JSON: {error}") from None
        if not isinstance(raw, dict):
            raise IncompatibleCheckpoint(f"{origin} must hold one JSON object, but holds a {type(raw).__name__}")
        version = raw.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise IncompatibleCheckpoint(f"{origin}: format_version must be {FORMAT_VERSION}, but is {version!r}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise IncompatibleCheckpoint(f"{origin} has unknown keys: {', '.join(unknown)}")
        try:
            recipe = cls(**{**raw, "matryoshka_dimensions": tuple(raw.get("matryoshka_dimensions", ()))})
        except TypeError as error:
            raise IncompatibleCheckpoint(f"{origin} is incomplete: {error}") from None
        recipe.check(origin)
        return recipe

    @property
    def times_frames(self) -> bool:
        """Whether each frame of a video stands behind its second."""
        return self.video == "timed-frames"

    def check(self, origin: Path) -> None:
        """Raise `IncompatibleCheckpoint` naming the first value that cannot be honoured."""
        self._check_types(origin)
        family = get_family(self.family)
        allowed = {
            "pooling": POOLINGS,
            "position_mode": family.position_modes,
            "attention": family.attention_modes,
            "video": VIDEOS,
            "quantization": (None, *QUANTIZATIONS),
            "format_version": (FORMAT_VERSION,),
        }
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                known = " or ".join(map(repr, values))
                raise IncompatibleCheckpoint(f"{origin}: {key} must be {known}, but is {getattr(self, key)!r}")
        if self.min_pixels > self.max_pixels:
            raise IncompatibleCheckpoint(
                f"{origin}: min_pixels must be at most max_pixels {self.max_pixels}, but is {self.min_pixels}"
            )
        if wide := [width for width in self.matryoshka_dimensions if width > self.dimensions]:
            raise IncompatibleCheckpoint(
                f"{origin}: matryoshka_dimensions must be at most {self.dimensions}, but one is {wide[0]}"
            )
        template = self.find_template(origin)
        if self.times_frames and "{content}" not in template.text:
            raise IncompatibleCheckpoint(
                f"{origin}: video 'timed-frames' needs a template that keeps the order of content, "
                f"but {self.template!r} moves pictures away from their times"
            )
        if template.version != self.template_version:
            raise IncompatibleCheckpoint(
                f"{origin}: template {self.template!r} is at version {template.version} here, "
                f"but the model was made with version {self.template_version}"
            )

    def _check_types(self, origin: Path) -> None:
        for key in ("name", "family", "template", "base", "adapter", "adapter_sha256"):
            value = getattr(self, key)
            optional = key.startswith(("base", "adapter"))
            if not (isinstance(value, str) and value) and not (optional and value is None):
                raise IncompatibleCheckpoint(f"{origin}: {key} must be a text, but is {value!r}")
        for key in ("dimensions", "min_pixels", "max_pixels", "max_tokens", "template_version"):
            if not _is_count(getattr(self, key)):
                raise IncompatibleCheckpoint(
                    f"{origin}: {key} must be a positive integer, but is {getattr(self, key)!r}"
                )
        if self.soft_prompt != 0 and not _is_count(self.soft_prompt):
            raise IncompatibleCheckpoint(f"{origin}: soft_prompt must be 0 or more, but is {self.soft_prompt!r}")
        if not all(map(_is_count, self.matryoshka_dimensions)):
            raise IncompatibleCheckpoint(f"{origin}: matryoshka_dimensions must be positive integers")

    def find_template(self, origin: Path) -> Template:
        """Return the family's template of that name, with the soft prompt in front of it."""
        templates = get_family(self.family).templates
        if self.template not in templates:
            raise IncompatibleCheckpoint(
                f"{origin}: template must be one of {', '.join(templates)}, but is {self.template!r}"
            )
        template = templates[self.template]
        if not self.soft_prompt:
            return template
        return replace(template, text="".join(soft_tokens(self.soft_prompt)) + template.text)


def soft_tokens(count: int) -> list[str]:
    """Return the control tokens of a soft prompt."""
    return [f"<|soft_{number}|>" for number in range(count)]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
