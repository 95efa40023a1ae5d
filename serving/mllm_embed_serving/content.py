"""Items of a request -> `EmbedInput`s: the wire's many ways to write a text, a picture, or both, end here.

An item of `input` is a string, an array of token ids, an object `{"text", "image", "region", "instruction"}`, or an
array of OpenAI content parts. An item of `messages` is a conversation. Each gives one vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mllm_embed.types import Content, EmbedInput, Text
from mllm_embed_serving import fields
from mllm_embed_serving.errors import InvalidParameter
from mllm_embed_serving.media_parts import read_document, read_image, read_region, read_video
from mllm_embed_serving.token_ids import Decode

MAX_TOKEN_IDS = 100_000
"""Longest array of token ids; every model's context is shorter, and each id is checked one by one."""

_ITEM_KEYS = ("text", "image", "region", "instruction")
PART_KEYS = {
    "text": "text",
    "input_text": "text",
    "image_url": "image_url",
    "input_image": "image_url",
    "image_base64": "image_base64",
    "video_url": "video_url",
    "video_base64": "video_base64",
    "document_url": "document_url",
    "document_base64": "document_base64",
    "file": "file",
}
"""Types of content parts, of OpenAI's, vLLM's and Voyage's APIs, and the key that holds their value."""


@dataclass(frozen=True, kw_only=True)
class ItemReader:
    """Reads items of one model.

    Attributes:
        decode: turns token ids into text.
        max_text_chars: longest single text.
        max_frames: most frames of one video.
    """

    decode: Decode
    max_text_chars: int
    max_frames: int

    def item(self, value: Any, path: str) -> EmbedInput:
        """Read one item of `input`.

        Raises:
            InvalidParameter: the item, or what is in it, is none of the known forms.
            InputError: its picture or its token ids are refused.
        """
        if isinstance(value, str):
            return self.text(value, path)
        if isinstance(value, dict):
            return self._object(value, path)
        if isinstance(value, list):
            if not value:
                raise InvalidParameter("must not be an empty array", param=path)
            if all(isinstance(part, dict) for part in value):
                return self.parts(value, path)
            return self.token_ids(value, path)
        raise fields.wrong_type("a string, an object, or an array of token ids or content parts", value, path)

    def text(self, value: Any, path: str) -> EmbedInput:
        """Read an item that is a text."""
        return EmbedInput((Text(fields.text(value, path, self.max_text_chars)),))

    def image(self, value: Any, path: str) -> EmbedInput:
        """Read an item that is a picture: a data URI, bare base64, or a URL."""
        return EmbedInput((read_image(value, path),))

    def parts(self, value: Any, path: str) -> EmbedInput:
        """Read an item that is an array of content parts."""
        if not isinstance(value, list):
            raise fields.wrong_type("an array of content parts", value, path)
        if not value:
            raise InvalidParameter("must not be an empty array", param=path)
        return EmbedInput(self._parts(value, path))

    def content_object(self, value: Any, path: str) -> EmbedInput:
        """Read an item `{"content": [part, ...]}`, as Cohere's and Voyage's clients write it."""
        if not isinstance(value, dict):
            raise fields.wrong_type("an object with content", value, path)
        return self.parts(value.get("content"), f"{path}.content")

    def token_ids(self, value: list[Any], path: str) -> EmbedInput:
        """Read an array of token ids; they are embedded as the text that they spell."""
        for position, token_id in enumerate(value):
            if type(token_id) is not int:
                raise fields.wrong_type("a token id (an integer)", token_id, f"{path}[{position}]")
        if len(value) > MAX_TOKEN_IDS:
            raise InvalidParameter(f"may hold at most {MAX_TOKEN_IDS} token ids, but holds {len(value)}", param=path)
        return EmbedInput((Text(self.decode(value)),))

    def conversation(self, value: Any, path: str) -> EmbedInput:
        """Read one conversation: an optional system message, which is the instruction, then one user message.

        An empty assistant message may close it, as some chat clients send one.

        Raises:
            InvalidParameter: other roles, or more than one message of a role.
        """
        if not isinstance(value, list):
            raise fields.wrong_type("an array of messages", value, path)
        contents: dict[str, tuple[Content, ...]] = {}
        for position, message in enumerate(value):
            here = f"{path}[{position}]"
            role, content = self._message(message, here)
            if role in contents:
                raise InvalidParameter(f"a conversation may hold one {role} message, but holds another", param=here)
            if role == "assistant" and any(not isinstance(part, Text) or part.text for part in content):
                raise InvalidParameter("an assistant message must be empty: only the user's is embedded", param=here)
            contents[role] = content
        if not contents.get("user"):
            raise InvalidParameter("a conversation needs a user message with content", param=path)
        return EmbedInput(contents["user"], self._instruction(contents.get("system"), path))

    def _instruction(self, system: tuple[Content, ...] | None, path: str) -> str | None:
        if system is None:
            return None
        texts = [part.text for part in system if isinstance(part, Text)]
        if len(texts) < len(system):
            raise InvalidParameter("a system message must be text", param=path)
        return "".join(texts)

    def _message(self, message: Any, path: str) -> tuple[str, tuple[Content, ...]]:
        if not isinstance(message, dict):
            raise fields.wrong_type("a message, that is an object with role and content", message, path)
        roles = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}
        role = fields.choice(message.get("role", ""), f"{path}.role", roles, "")
        content = message.get("content")
        if isinstance(content, list):
            return role, self._parts(content, f"{path}.content")
        text = fields.text(content, f"{path}.content", self.max_text_chars)
        return role, (Text(text),)

    def _object(self, value: dict[str, Any], path: str) -> EmbedInput:
        """Read `{"text", "image", "region", "instruction"}`; the picture stands first, whatever the order of keys."""
        if "type" in value:
            raise InvalidParameter(
                "a content part must stand in an array: [[part, part]] is one item of two parts", param=path
            )
        fields.known_keys(value, path, _ITEM_KEYS)
        text = fields.optional_text(value.get("text"), f"{path}.text", self.max_text_chars)
        instruction = fields.optional_text(value.get("instruction"), f"{path}.instruction", self.max_text_chars)
        content: list[Content] = []
        region = read_region(value.get("region"), f"{path}.region")
        if value.get("image") is not None:
            content.append(read_image(value["image"], f"{path}.image", region))
        elif region is not None:
            raise InvalidParameter("is of an image, but there is none", param=f"{path}.region")
        if text or (text is not None and not content):
            content.append(Text(text))
        if not content:
            raise InvalidParameter("needs a text, an image, or both", param=path)
        return EmbedInput(tuple(content), instruction)

    def _parts(self, value: list[Any], path: str) -> tuple[Content, ...]:
        return tuple(self._part(part, f"{path}[{position}]") for position, part in enumerate(value))

    def _part(self, part: Any, path: str) -> Content:
        if not isinstance(part, dict):
            raise fields.wrong_type("a content part, that is an object with a type", part, path)
        key = fields.choice(part.get("type", ""), f"{path}.type", PART_KEYS, "")
        value, here = part.get(key), f"{path}.{key}"
        if key == "text":
            return Text(fields.text(value, here, self.max_text_chars))
        if isinstance(value, dict):
            name = "file_data" if key == "file" else "url"
            value, here = value.get(name), f"{here}.{name}"
        if key.startswith("video"):
            return read_video(value, here, part, path, self.max_frames)
        if key.startswith("document") or key == "file":
            return read_document(value, here, part, path)
        return read_image(value, here, read_region(part.get("region"), f"{path}.region"))
