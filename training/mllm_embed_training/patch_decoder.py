"""What paints hidden patches again: a small decoder on top of an LVLM, trained with it and thrown away after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

HEAD_WIDTH = 64
"""Width of the decoder's attention heads."""


class PatchDecoder(nn.Module):
    """One transformer layer over the token states, and a linear layer to pixels, as in MAE (arXiv:2111.06377).

    Args:
        width: of the token states, D.
        patches: patches per visual token, R.
        values: numbers per patch, P.
    """

    def __init__(self, width: int, patches: int, values: int) -> None:
        super().__init__()
        self._values = values
        heads = max(1, width // HEAD_WIDTH)
        self.layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, patches * values)

    def forward(self, hidden: Tensor, mask: Tensor, visual: Tensor) -> Tensor:
        """Paint all patches.

        Args:
            hidden: token states, shape [B, S, D].
            mask: 1 for real tokens, shape [B, S].
            visual: bool, where visual tokens stand, shape [B, S].

        Returns:
            shape [patches of the batch, P], in the order of the model's pixel inputs.
        """
        states: Tensor = self.layer(hidden, src_key_padding_mask=mask == 0)
        painted: Tensor = self.pixels(self.norm(states[visual]))
        return painted.view(-1, self._values)


class WithPatchDecoder(nn.Module):
    """An LVLM and the decoder as one module, so that both are trained and kept in checkpoints; saved is the LVLM alone.

    Args:
        lvlm: wrapped by PEFT or not.
        decoder: reads its token states.
    """

    def __init__(self, lvlm: nn.Module, decoder: PatchDecoder) -> None:
        super().__init__()
        self.lvlm: Any = lvlm
        self.decoder = decoder

    def get_base_model(self) -> nn.Module:
        """Return the LVLM without PEFT's wrapping."""
        base = self.lvlm.get_base_model() if hasattr(self.lvlm, "get_base_model") else self.lvlm
        return cast("nn.Module", base)

    def save_pretrained(self, folder: Path) -> None:
        """Save the LVLM, or its adapter."""
        self.lvlm.save_pretrained(folder)
