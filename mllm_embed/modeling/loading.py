"""Base model + adapter + precision -> a module that gives token states. Training and the backends share this file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from mllm_embed.errors import BackendUnavailable, IncompatibleCheckpoint
from mllm_embed.families import get_family
from mllm_embed.modeling import torch_compat
from mllm_embed.modeling.attention_modes import attend_both_ways
from mllm_embed.modeling.cross_attention import follow_authors
from mllm_embed.modeling.packed_attention import use_packed_attention

if TYPE_CHECKING:
    from mllm_embed.model_dir import ModelDir

Precision = Literal["float32", "bfloat16", "float16", "4bit"]
_PREFIX = "base_model.model."
"""What PEFT puts before the names of an adapter's weights."""
AttentionKernel = Literal["sdpa", "eager", "flash_attention_2"]


def load_model(
    model_dir: ModelDir,
    *,
    precision: Precision = "float32",
    attention: AttentionKernel = "sdpa",
    device: str = "cpu",
) -> nn.Module:
    """Load the whole LVLM (language-model head included) with its adapter attached, in evaluation mode.

    Args:
        model_dir: the opened model directory.
        precision: a dtype, or `4bit` for bitsandbytes NF4 with double quantisation.
        attention: the attention kernel; flash-attn is imported only when asked for.
        device: torch device.

    Raises:
        IncompatibleCheckpoint: weights or adapter keys are missing or do not fit.
        BackendUnavailable: the chosen kernel or quantisation is not installed.
    """
    model = load_without_adapter(model_dir, precision=precision, attention=attention, device=device)
    if model_dir.adapter is not None:
        model = attach_adapter(model, model_dir.adapter)
    return model.eval()


def load_without_adapter(
    model_dir: ModelDir,
    *,
    precision: Precision = "float32",
    attention: AttentionKernel = "sdpa",
    device: str = "cpu",
) -> nn.Module:
    """Load the weights that the adapter goes on, under the recipe's attention mask; see `load_model`.

    Weights that were in 4 bits when the adapter was trained are rounded to these and de-quantised.
    """
    if model_dir.adapter is None or model_dir.recipe.quantization is None or precision == "4bit":
        model = load_base(model_dir.weights, precision=precision, attention=attention, device=device)
    else:
        rounded = load_base(model_dir.weights, precision="4bit", attention=attention, device=device)
        model = _dequantized(rounded, getattr(torch, precision))
    if model_dir.recipe.attention == "bidirectional":
        attend_both_ways(model.get_submodule(model_dir.family.language_model))
    return model


def _dequantized(model: Any, dtype: torch.dtype) -> nn.Module:
    """Turn weights in 4 bits into plain ones of the same values."""
    plain: Any = model.dequantize(torch.float32)
    plain.is_loaded_in_4bit = False  # transformers leaves the mark, and then refuses to move or save the model
    for parameter in plain.parameters():  # not `to`, which would round the rotary frequencies too
        parameter.data = parameter.data.to(dtype)
    module: nn.Module = plain
    return module


def load_base(
    weights: Path, *, precision: Precision = "float32", attention: AttentionKernel = "sdpa", device: str = "cpu"
) -> nn.Module:
    """Load the base model alone; see `load_model`."""
    torch_compat.apply()
    from safetensors import SafetensorError
    from transformers import AutoModelForMultimodalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    options: dict[str, Any] = {"attn_implementation": attention, "trust_remote_code": False}
    if precision == "4bit":
        options["quantization_config"] = nf4_config()
        options["device_map"] = {"": device}
    else:
        options["dtype"] = getattr(torch, precision)
    try:
        loaded: Any = AutoModelForMultimodalLM.from_pretrained(
            str(weights), output_loading_info=True, local_files_only=True, **options
        )
    except ImportError as error:
        raise BackendUnavailable(f"{attention} attention or {precision} weights need a package: {error}") from error
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise IncompatibleCheckpoint(f"{weights} could not be loaded: {str(error).splitlines()[0]}") from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise IncompatibleCheckpoint(f"{weights} lacks {len(missing)} weights, the first is {missing[0]}")
    use_packed_attention(model, attention)
    follow_authors(model)
    module: nn.Module = model
    return module if precision == "4bit" else module.to(device)


def attach_adapter(model: nn.Module, adapter: Path, *, trainable: bool = False) -> nn.Module:
    """Attach a PEFT adapter and prove that all its weights arrived and that it does something.

    Raises:
        IncompatibleCheckpoint: keys of the adapter do not fit the model, or its effect is zero.
    """
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found missing adapter keys")  # checked below, with old names put right
            tuned: nn.Module = PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise IncompatibleCheckpoint(f"{adapter}: the adapter does not fit the model: {reason}") from error
    check_attached(tuned, adapter)
    return tuned


def check_attached(tuned: nn.Module, adapter: Path, name: str = "default") -> None:
    """Load an adapter's weights, by names of transformers 4 too; prove that all arrived and that they do something.

    Args:
        tuned: the model, wrapped by PEFT.
        adapter: folder of the adapter.
        name: what PEFT calls it.

    Raises:
        IncompatibleCheckpoint: keys of the adapter do not fit the model or are missing, or its effect is zero.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    model: Any = tuned
    family = get_family(model.config.model_type)
    stored = {
        _PREFIX + family.new_name(key.removeprefix(_PREFIX)): weight
        for key, weight in load_file(adapter / "adapter_model.safetensors").items()
    }
    left: Any = set_peft_model_state_dict(model, stored, adapter_name=name)
    if unknown := sorted(left.unexpected_keys):
        raise IncompatibleCheckpoint(
            f"{adapter}: {len(unknown)} adapter weights fit nowhere, the first is {unknown[0]}"
        )
    own = {key: weight for key, weight in tuned.named_parameters() if f".{name}." in f"{key}."}
    if absent := sorted(own.keys() & set(left.missing_keys)):
        raise IncompatibleCheckpoint(f"{adapter}: it lacks {len(absent)} adapter weights, the first is {absent[0]}")
    if not any(bool(weight.any()) for key, weight in own.items() if "lora_B" in key):
        raise IncompatibleCheckpoint(f"{adapter}: every lora_B is zero, so the adapter changes nothing")


def nf4_config() -> Any:
    """The bitsandbytes settings of QLoRA: NF4 with double quantisation, bf16 compute."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def keep_unpacked(model: nn.Module) -> None:
    """Keep bitsandbytes from packing weights in 4 bits anew for its CPU kernel of inference.

    It would do so in the first evaluation within a training run, and round the weights' scales to bfloat16 for good.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def inner_model(model: nn.Module) -> nn.Module:
    """Return the part below the language-model head, through a PEFT wrapper: it gives the token states."""
    outer: Any = model
    inner: nn.Module = (outer.get_base_model() if hasattr(outer, "get_base_model") else outer).model
    return inner


def language_head(model: nn.Module) -> nn.Module:
    """Return the language-model head, through a PEFT wrapper: it gives a logit per token of the vocabulary."""
    outer: Any = model
    head: nn.Module = outer.get_output_embeddings()
    return head
