"""Published embedders by their hub names: how each must be run so that its vectors are its authors'.

These are facts, each entry with where they were found. `verified` is said only of what a test compares with numbers of
the authors' code, or of a library version that was found to give the same; everything else is as the card, the paper
or the code says, and has not been compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

    def check_runs(self) -> None:
        """Raise `IncompatibleCheckpoint`, with the reason, if it cannot be run here."""
        if self.refused is not None:
            raise IncompatibleCheckpoint(f"{self.name} cannot be run: {self.refused}")

    def apply(self, recipe: Recipe) -> Recipe:
        """Return the detected recipe of its checkpoint, changed to the authors' way.

        Raises:
            IncompatibleCheckpoint: it cannot be run here, or the checkpoint is of another family or width.
        """
        self.check_runs()
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
_B3 = "code of raghavlite/B3, which evaluates with VLM2Vec's"
_UNIME = "code and evaluation scripts of deepglint/UniME"
_UNIME_V2 = "code of GaryGuTC/UniME-v2 (prompt, pooling, pixels), a fork of VLM2Vec's"
_QWEN3 = "code of QwenLM/Qwen3-VL-Embedding"
_WEMM = "code and card of Tencent/WeMM-Embedding (pooling, sizes); its prompt as a port of it writes it"
_PHI = "transformers has no Phi-3.5-V, which needs code in its checkpoint, and remote code is never run here"


def _sizes(entry: Published, widths: Mapping[str, int]) -> Iterator[Published]:
    """Give one entry for each size of a model: `{}` in its name is the size, whose vectors have the width."""
    for size, width in widths.items():
        yield replace(entry, name=entry.name.format(size), dimensions=width)


_QWEN2_VL = Published(
    name="TIGER-Lab/VLM2Vec-Qwen2VL-{}",
    family="qwen2_vl",
    dimensions=1536,
    position_mode="1d",
    source=_VLM2VEC,
    verified="position ids and pooling, on a tiny random Qwen2-VL",
)
_MOCA = Published(
    name="moca-embed/MoCa-Qwen25VL-{}",
    family="qwen2_5_vl",
    template="moca",
    pooling="mean",
    attention="bidirectional",
    dimensions=2048,
    licence="MIT",
    source="code of haon-chen/MoCa",
)
_QWEN3_VL = Published(
    name="Qwen/Qwen3-VL-Embedding-{}",
    family="qwen3_vl",
    template="qwen3-vl-embedding",
    dimensions=2048,
    min_pixels=4_096,
    max_pixels=1_843_200,
    source=_QWEN3,
)
_GME = Published(
    name="Alibaba-NLP/gme-Qwen2-VL-{}-Instruct",
    family="qwen2_vl",
    template="gme",
    dimensions=1536,
    min_pixels=200_704,
    max_pixels=1_003_520,
    licence=None,
    source="GME's inference code as TIGER-AI-Lab/VLM2Vec carries it",
)
_OPS_MM = replace(
    _GME,
    name="OpenSearch-AI/Ops-MM-embedding-v1-{}",
    licence="Apache-2.0",
    source="its card, and its wrapper in embeddings-benchmark/mteb (prompt, pooling, pixels)",
)
_LLAVE = Published(
    name="zhibinlan/LLaVE-{}",
    family=None,
    dimensions=896,
    source="code of DeepLearnXMU/LLaVE",
    refused="its weights are in LLaVA-NeXT's own format, which transformers does not read",
)
_WEMM_2B = Published(name="tencent/WeMM-Embedding-2B", family="qwen3_5", template="wemm", dimensions=2048, source=_WEMM)
_ENTRIES = (
    *_sizes(_QWEN2_VL, {"2B": 1536, "7B": 3584}),
    replace(_QWEN2_VL, name="VLM2Vec/VLM2Vec-V2.0"),
    *_sizes(replace(_QWEN2_VL, name="raghavlite/B3_Qwen2_{}", source=_B3, verified=None), {"2B": 1536, "7B": 3584}),
    *_sizes(
        replace(
            _QWEN2_VL,
            name="TianchengGu/UniME-V2-Qwen2VL-{}",
            min_pixels=200_704,
            max_pixels=1_003_520,
            licence="MIT",
            source=_UNIME_V2,
            verified=None,
        ),
        {"2B": 1536, "7B": 3584},
    ),
    Published(
        name="TianchengGu/UniME-V2-LLaVA-OneVision-8B",
        family="llava_onevision",
        dimensions=3584,
        licence="MIT",
        source=_UNIME_V2,
    ),
    Published(name="TIGER-Lab/VLM2Vec-LLaVa-Next", family="llava_next", dimensions=4096, source=_VLM2VEC),
    *(
        Published(name=f"TIGER-Lab/VLM2Vec-{kind}", family=None, dimensions=3072, source=_VLM2VEC, refused=_PHI)
        for kind in ("Full", "LoRA")
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
        name="DeepGlint-AI/UniME-LLaVA-OneVision-7B",
        family="llava_onevision",
        template="unime",
        dimensions=3584,
        licence="MIT",
        source="a wrapper that follows its card (prompt, pooling), the chat frame of LLaVA-OneVision",
    ),
    Published(
        name="DeepGlint-AI/UniME-Phi3.5-V-4.2B",
        family=None,
        template="unime",
        dimensions=3072,
        licence="MIT",
        source=_UNIME,
        refused=_PHI,
    ),
    Published(
        name="intfloat/mmE5-mllama-11b-instruct",
        family="mllama",
        template="mme5",
        dimensions=4096,
        licence="MIT",
        source="code of haon-chen/mmE5 (prompt, pooling), and the examples of its card",
        verified="the forward pass of transformers 4.48.3, which its code uses, on a tiny random Llama 3.2 Vision",
    ),
    *_sizes(_MOCA, {"3B": 2048, "7B": 3584}),
    *_sizes(_QWEN3_VL, {"2B": 2048, "8B": 4096}),
    *(
        replace(_WEMM_2B, name=f"tencent/WeMM-Embedding-{size}", dimensions=widths[-1], matryoshka_dimensions=widths)
        for size, widths in (
            ("2B", (64, 128, 256, 512, 1024, 2048)),
            ("4B", (64, 128, 256, 512, 1024, 2560)),
            ("9B", (64, 128, 256, 512, 1024, 2048, 4096)),
        )
    ),
    *_sizes(_GME, {"2B": 1536, "7B": 3584}),
    *_sizes(_OPS_MM, {"2B": 1536, "7B": 3584}),
    Published(
        name="qihoo360/RzenEmbed",
        family="qwen2_vl",
        template="rzen",
        dimensions=3584,
        min_pixels=200_704,
        max_pixels=1_003_520,
        licence="MIT",
        source="code of 360CVGroup/RzenEmbed",
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
        source="vLLM's examples and its test of this model (prompt, pooling)",
    ),
    Published(
        name="jinaai/jina-embeddings-v4",
        family=None,
        dimensions=2048,
        licence="CC-BY-NC-4.0",
        source="its entry in embeddings-benchmark/mteb",
        refused="its adapters, one for each task, need code in its checkpoint, and remote code is never run here",
    ),
    *_sizes(_LLAVE, {"0.5B": 896, "2B": 1536, "7B": 3584}),
)

PUBLISHED: dict[str, Published] = {entry.name: entry for entry in _ENTRIES}
"""The published embedders, by hub name."""
