"""Every error this project raises on purpose.

    MllmEmbedError
    ├── InputError                    the caller's input cannot be embedded
    │   ├── InvalidInput              empty text, a slot without media, a wrong type
    │   ├── InvalidMedia              bytes that are not a supported picture
    │   ├── MediaTooLarge             more bytes or pixels than the limit
    │   ├── MediaNotAllowed           a source (URL, file) that the policy refuses
    │   ├── MediaFetchError           an allowed URL that did not deliver
    │   ├── InputTooLong              more tokens than the model takes
    │   └── InvalidDimensions         a width the model does not offer
    ├── ModelError                    the model directory or its weights are at fault
    │   ├── ModelNotFound             no such directory or hub model
    │   ├── UnknownFamily             an architecture without a family file
    │   └── IncompatibleCheckpoint    a recipe, adapter or weight file that does not fit
    └── BackendError                  the engine is at fault
        ├── BackendUnavailable        it is not installed, not up, or has died
        └── Overloaded                its queue is full

Messages name the thing, the limit and the offender. Serving maps the tree to HTTP in one table.
"""

from __future__ import annotations


class MllmEmbedError(Exception):
    """Base of every error raised on purpose by this project."""


class InputError(MllmEmbedError):
    """The caller's input cannot be embedded.

    Attributes:
        index: position of the offending item in the caller's list, once known.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.index = index

    def __str__(self) -> str:
        return self.message if self.index is None else f"input[{self.index}]: {self.message}"

    def at(self, index: int) -> InputError:
        """Return this error, marked as caused by item `index` of the caller's list."""
        if self.index is None:
            self.index = index
        return self


class InvalidInput(InputError):
    """Empty text, an item without content, or a value of the wrong type."""


class InvalidMedia(InputError):
    """Bytes that are not a picture of a supported format."""


class MediaTooLarge(InputError):
    """More bytes or pixels than the limit."""


class MediaNotAllowed(InputError):
    """A media source (URL, local file) that the policy in force refuses."""


class MediaFetchError(InputError):
    """An allowed URL that did not deliver a picture in time."""


class InputTooLong(InputError):
    """More tokens than the model takes."""


class InvalidDimensions(InputError):
    """A vector width that the model does not offer."""


class ModelError(MllmEmbedError):
    """The model directory or its weights are at fault."""


class ModelNotFound(ModelError):
    """No such model directory, and no such model on the hub."""


class UnknownFamily(ModelError):
    """A model architecture for which there is no family file."""


class IncompatibleCheckpoint(ModelError):
    """A recipe, adapter or weight file that does not fit the rest."""


class BackendError(MllmEmbedError):
    """The engine is at fault, not the caller."""


class BackendUnavailable(BackendError):
    """The engine is not installed, not up, or has died."""


class Overloaded(BackendError):
    """The engine's queue is full."""
