"""In which precision a run computes."""

import pytest
import torch

from mllm_embed_training.device import computes_in_bf16

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("able", [True, False])
def test_a_processor_computes_in_bfloat16_where_it_can_unless_the_recipe_says(
    able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able)
    cpu = torch.device("cpu")
    assert computes_in_bf16("auto", cpu) is able
    assert computes_in_bf16(True, cpu)
    assert not computes_in_bf16(False, cpu)


@pytest.mark.parametrize("able", [True, False])
def test_a_gpu_computes_in_bfloat16_where_it_need_not_be_emulated(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able and not including_emulation)
    assert computes_in_bf16("auto", torch.device("cuda")) is able
