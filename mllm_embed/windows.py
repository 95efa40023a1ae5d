"""A long text -> windows that a model can read, in tokens of its own tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

from mllm_embed.errors import InvalidInput
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, Text


@dataclass(frozen=True, slots=True)
class Windows:
    """How a text is cut.

    Attributes:
        size: tokens of a window, its title among them; None takes as many as the model does.
        overlap: tokens that neighbouring windows share.
        title: stands before every window, on a line of its own.
    """

    size: int | None = None
    overlap: int = 32
    title: str = ""

    def __post_init__(self) -> None:
        if self.overlap < 0:
            raise InvalidInput(f"overlap of windows must be at least 0, but is {self.overlap}")


def split(text: str, how: Windows, instruction: str, renderer: PromptRenderer, max_tokens: int) -> list[Text]:
    """Cut a text; one that fits into a window stays whole.

    Args:
        text: of any length.
        how: size, overlap, title.
        instruction: under which the windows will be embedded.
        renderer: of the model.
        max_tokens: that the model takes, instruction and template included.

    Raises:
        InvalidInput: the text is empty or no valid Unicode, or there is no room for more than title and overlap.
    """
    if not text.strip():
        raise InvalidInput("text must not be empty")
    head = f"{how.title}\n" if how.title else ""

    def excess(piece: str) -> int:
        """How many tokens too many a window has; negative where there is room for more."""
        window = head + (piece or ".")
        too_many = len(renderer.render(EmbedInput((Text(window),), instruction), "", ()).token_ids) - max_tokens
        return too_many if how.size is None else max(too_many, len(renderer.tokenize(window)) - how.size)

    room = 1 - excess(".")
    if room <= how.overlap:
        raise InvalidInput(
            f"windows must have room for more than the overlap of {how.overlap} tokens, but have room for "
            f"{max(0, room)} beside title and instruction"
        )
    spans = renderer.spans(text)
    windows: list[Text] = []
    start = end = 0
    while end < len(spans):
        end = min(start + room, len(spans))
        piece = text[spans[start][0] : spans[end - 1][1]].strip()
        while end > start + 1 and (over := excess(piece)) > 0:  # cut out, a piece may have more tokens than inside
            end = max(start + 1, end - over)
            piece = text[spans[start][0] : spans[end - 1][1]].strip()
        if piece:
            windows.append(Text(head + piece))
        start = max(start + 1, end - how.overlap)
    return windows
