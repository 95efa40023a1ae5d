"""Published embedders by their hub names: how each must be run so that its vectors are its authors'.

These are facts, each entry with where they were found. `verified` is said only of what a test compares with numbers of
the authors' code, or of a library version that was found to give the same; everything else is as the card, the paper
or the code says, and has not been compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.families import get_family
from mllm_embed.recipe import Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One published embedder.

    Attributes:
        name: its name on the hub.
        family: backbone family, see `mllm_embed.families`; None where none of ours fits.
        template: the family's template that is the authors' prompt.
        dimensions: full vector width.
        matryoshka_dimensions: widths that it was trained to be cut to.
        pooling: see `Recipe.pooling`.
        position_mode: see `Recipe.position_mode`; None is the family's own.
        attention: see `Recipe.attention`; None is the family's own.
        min_pixels: the authors' smallest area of a picture, where it differs from the checkpoint's own.
        max_pixels: their largest area.
        licence: of the authors' repository; None where it was not found.
        source: where the facts were found.
        verified: what of it a test compares with the authors' code, or None.
        refused: why it cannot be run here, as the end of a sentence; None if it can.
    """

    name: str
    family: str | None
    template: str = "vlm2vec"
    dimensions: int
    matryoshka_dimensions: tuple[int, ...] = ()
    pooling: str = "last_token"
    position_mode: str | None = None
    attention: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    licence: str | None = "Apache-2.0"
    source: str
    verified: str | None = None
    refused: str | None = None

    def apply(self, recipe: Recipe) -> Recipe:
        """Return the detected recipe of its checkpoint, changed to the authors' way.

        Raises:
            IncompatibleCheckpoint: it cannot be run here, or the checkpoint is of another family or width.
        """
        if self.refused is not None:
            raise IncompatibleCheckpoint(f"{self.name} cannot be run: {self.refused}")
        for key in ("family", "dimensions"):
            if getattr(recipe, key) != getattr(self, key):
                raise IncompatibleCheckpoint(
                    f"{self.name} has the {key} {getattr(self, key)!r}, but the checkpoint has {getattr(recipe, key)!r}"
                )
        template = get_family(recipe.family).templates[self.template]
        return replace(
            recipe,
            template=template.name,
            template_version=template.version,
            pooling=self.pooling,
            position_mode=self.position_mode or recipe.position_mode,
            attention=self.attention or recipe.attention,
            matryoshka_dimensions=self.matryoshka_dimensions,
            min_pixels=self.min_pixels or recipe.min_pixels,
            max_pixels=self.max_pixels or recipe.max_pixels,
        )

    @property
    def state(self) -> Literal["verified", "from the card", "not served"]:
        """How far the entry can be trusted."""
        if self.refused is not None:
            return "not served"
        return "from the card" if self.verified is None else "verified"


_VLM2VEC = "code of TIGER-AI-Lab/VLM2Vec (prompt, pooling), its forward pass run for the positions"
_UNIME = "code and evaluation scripts of deepglint/UniME"
_QWEN3 = "code of QwenLM/Qwen3-VL-Embedding"

PUBLISHED: dict[str, Published] = {
    entry.name: entry
    for entry in (
        *(
            Published(
                name=name,
                family="qwen2_vl",
                dimensions=width,
                position_mode="1d",
                source=_VLM2VEC,
                verified="position ids and pooling, on a tiny random Qwen2-VL",
            )
            for name, width in (
                ("TIGER-Lab/VLM2Vec-Qwen2VL-2B", 1536),
                ("TIGER-Lab/VLM2Vec-Qwen2VL-7B", 3584),
                ("VLM2Vec/VLM2Vec-V2.0", 1536),
            )
        ),
        *(
            Published(name=name, family="qwen2_vl", dimensions=width, position_mode="1d", source=source)
            for name, width, source in (
                ("raghavlite/B3_Qwen2_2B", 1536, "code of raghavlite/B3, which evaluates with VLM2Vec's"),
                ("raghavlite/B3_Qwen2_7B", 3584, "code of raghavlite/B3, which evaluates with VLM2Vec's"),
            )
        ),
        Published(name="TIGER-Lab/VLM2Vec-LLaVa-Next", family="llava_next", dimensions=4096, source=_VLM2VEC),
        Published(
            name="TIGER-Lab/VLM2Vec-Full",
            family=None,
            dimensions=3072,
            source=_VLM2VEC,
            refused="Phi-3.5-V runs with remote code only",
        ),
        Published(
            name="DeepGlint-AI/UniME-LLaVA-1.6-7B",
            family="llava_next",
            template="unime",
            dimensions=4096,
            licence="MIT",
            source=_UNIME,
        ),
        Published(
            name="DeepGlint-AI/UniME-Phi3.5-V-4.2B",
            family=None,
            template="unime",
            dimensions=3072,
            licence="MIT",
            source=_UNIME,
            refused="Phi-3.5-V runs with remote code only",
        ),
        Published(
            name="intfloat/mmE5-mllama-11b-instruct",
            family=None,
            dimensions=4096,
            licence="MIT",
            source="code of haon-chen/mmE5",
            refused="Llama 3.2 Vision attends to pictures across layers, for which there is no family",
        ),
        *(
            Published(
                name=f"moca-embed/MoCa-Qwen25VL-{size}",
                family="qwen2_5_vl",
                template="moca",
                pooling="mean",
                attention="bidirectional",
                dimensions=width,
                licence="MIT",
                source="code of haon-chen/MoCa",
            )
            for size, width in (("3B", 2048), ("7B", 3584))
        ),
        *(
            Published(
                name=f"Qwen/Qwen3-VL-Embedding-{size}",
                family="qwen3_vl",
                template="chat",
                dimensions=width,
                min_pixels=4_096,
                max_pixels=1_843_200,
                source=_QWEN3,
            )
            for size, width in (("2B", 2048), ("8B", 4096))
        ),
        *(
            Published(
                name=f"Alibaba-NLP/gme-Qwen2-VL-{size}-Instruct",
                family="qwen2_vl",
                template="gme",
                dimensions=width,
                licence=None,
                source="GME's inference code as TIGER-AI-Lab/VLM2Vec carries it",
            )
            for size, width in (("2B", 1536), ("7B", 3584))
        ),
        Published(
            name="royokong/e5-v",
            family="llava_next",
            template="e5-v",
            dimensions=4096,
            source="E5-V's prompts as TIGER-AI-Lab/VLM2Vec carries them",
        ),
        Published(
            name="MrLight/dse-qwen2-2b-mrl-v1",
            family="qwen2_vl",
            template="dse",
            dimensions=1536,
            licence=None,
            source="the template that vLLM's examples ship for it",
        ),
        *(
            Published(
                name=f"zhibinlan/LLaVE-{size}",
                family=None,
                dimensions=width,
                source="code of DeepLearnXMU/LLaVE",
                refused="its weights are in LLaVA-NeXT's own format, which transformers does not read",
            )
            for size, width in (("0.5B", 896), ("2B", 1536), ("7B", 3584))
        ),
    )
}
"""The published embedders, by hub name."""
