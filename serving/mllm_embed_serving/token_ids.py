"""What an array of token ids means: the model's own, OpenAI's cl100k, or nothing that is accepted.

Clients made for OpenAI's models (LangChain by default) send the ids of OpenAI's tokenizer. Read as this model's ids
they would spell another text and give a wrong vector without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NoReturn

from mllm_embed.errors import BackendUnavailable, InvalidInput

TokenIds = Literal["native", "cl100k", "reject"]
Decode = Callable[[Sequence[int]], str]
"""Turns token ids into text; raises `InvalidInput`."""


def decoder(policy: TokenIds, native: Decode) -> Decode:
    """Return what turns token ids into text under a policy.

    Args:
        policy: `native`, the model's own ids; `cl100k`, OpenAI's, turned into text and tokenised anew; `reject`.
        native: decodes the model's own ids, and refuses those that its tokenizer would not make.

    Raises:
        BackendUnavailable: `cl100k` without the package `tiktoken`, or without its table where there is no network.
    """
    if policy == "native":
        return native
    return _refuse if policy == "reject" else _cl100k()


def _refuse(_: Sequence[int]) -> NoReturn:
    raise InvalidInput("token ids are not accepted by this server: send text")


def _cl100k() -> Decode:
    try:
        import tiktoken

        encoding = tiktoken.get_encoding("cl100k_base")
    except Exception as error:  # the package, or the download of its table, in one of many ways
        raise BackendUnavailable(
            f"--token-ids cl100k needs the package tiktoken and its cl100k_base table (TIKTOKEN_CACHE_DIR): {error}"
        ) from error

    def decode(ids: Sequence[int]) -> str:
        try:
            return encoding.decode(list(ids), errors="strict")
        except (KeyError, OverflowError, UnicodeDecodeError):
            raise InvalidInput("the token ids are not cl100k ids of any text") from None

    return decode
