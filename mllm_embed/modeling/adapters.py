"""Several LoRA adapters attached to one model, of which one at a time is on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from mllm_embed.errors import IncompatibleCheckpoint
from mllm_embed.modeling.loading import check_attached


class LoadedAdapters:
    """A model and the adapters beside its own. Not to be used by two threads at once.

    Args:
        model: from `load_model`, with its own adapter or without one.
    """

    def __init__(self, model: nn.Module) -> None:
        from peft import PeftModel

        self._model: Any = model
        self._own = "default" if isinstance(model, PeftModel) else None

    def add(self, name: str, adapter: Path) -> None:
        """Attach an adapter under a name; a model that it does not fit is as it was before.

        Raises:
            IncompatibleCheckpoint: its keys or shapes do not fit the model, or it changes nothing.
        """
        from peft import PeftModel

        try:
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(str(adapter), adapter_name=name)
            else:
                self._model = PeftModel.from_pretrained(self._model, str(adapter), adapter_name=name)
            check_attached(self._model, adapter, name)
        except Exception as error:  # PEFT raises many kinds; all mean that the adapter does not fit
            self.remove(name)
            if isinstance(error, IncompatibleCheckpoint):
                raise
            reason = " ".join(str(error).split())[:200]
            raise IncompatibleCheckpoint(f"{adapter}: the adapter does not fit the model: {reason}") from error
        self._model.eval()

    def remove(self, name: str) -> None:
        """Detach an adapter; without any, the model is plain again."""
        from peft import PeftModel

        if not isinstance(self._model, PeftModel):
            _strip(self._model)  # what an attempt to attach left behind
        elif name in self._model.peft_config and len(self._model.peft_config) > 1:
            self._model.delete_adapter(name)
        elif name in self._model.peft_config:
            self._model = self._model.unload()

    @contextlib.contextmanager
    def using(self, name: str | None) -> Iterator[nn.Module]:
        """Hand out the model with one adapter on: the named one, or for None its own, if it has one."""
        from peft import PeftModel

        name = self._own if name is None else name
        if not isinstance(self._model, PeftModel):
            yield self._model
        elif name is None:
            with self._model.disable_adapter():
                yield self._model
        else:
            if self._model.active_adapter != name:
                self._model.set_adapter(name, inference_mode=True)
            yield self._model


def _strip(model: nn.Module) -> None:
    """Put the layers back that PEFT has wrapped."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrapped = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, module in wrapped:
        model.set_submodule(name, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
