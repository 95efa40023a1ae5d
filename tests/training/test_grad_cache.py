"""GradCache gives every trainable weight the gradient of the plain step: dropout, text-only chunks and all."""

import weakref
from collections.abc import Callable

import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from mllm_embed.model_dir import ModelDir
from mllm_embed.modeling.encode import encode
from mllm_embed.modeling.inputs import InputBuilder, ModelInputs
from mllm_embed.modeling.loading import load_model
from mllm_embed.prompts import PromptRenderer
from mllm_embed.types import EmbedInput, Image
from mllm_embed_training import grad_cache
from mllm_embed_training.grad_cache import grad_cache_step
from mllm_embed_training.losses import info_nce, matryoshka
from mllm_embed_training.objective import LossSection, Targets

Encode = Callable[[ModelInputs], Tensor]


def picture(number: int) -> PIL.Image.Image:
    return PIL.Image.radial_gradient("L").rotate(37 * number).convert("RGB").resize((64 + 8 * number, 64))


def pictures(item: EmbedInput) -> list[PIL.Image.Image]:
    sources = [content.source for content in item.content if isinstance(content, Image)]
    return [source for source in sources if isinstance(source, PIL.Image.Image)]


@pytest.fixture(scope="module")
def model(tiny_dir: ModelDir) -> nn.Module:
    """The tiny model with LoRA on language model and tower, dropout on, both factors random."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    targets = [*tiny_dir.family.lora_targets, *tiny_dir.family.tower_targets]
    config = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.3, target_modules=targets)
    tuned = get_peft_model(load_model(tiny_dir), config)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return tuned.train()


@pytest.fixture(scope="module")
def sides(tiny_dir: ModelDir) -> tuple[list[EmbedInput], list[EmbedInput]]:
    queries = [EmbedInput.of("two blue cats"), EmbedInput.of("a tree"), EmbedInput.of(picture(0)), EmbedInput.of("red")]
    candidates = [EmbedInput.of(picture(number), "circle") for number in range(1, 4)]
    return queries, [*candidates, EmbedInput.of("a white square"), EmbedInput.of("0")]


@pytest.fixture
def chunked(
    tiny_dir: ModelDir, sides: tuple[list[EmbedInput], list[EmbedInput]]
) -> Callable[[int], tuple[list[ModelInputs], list[ModelInputs]]]:
    renderer = PromptRenderer(tiny_dir.tokenizer_file, tiny_dir.family, tiny_dir.template)
    builder = InputBuilder(tiny_dir, renderer.image_token_id)

    def chunk(items: list[EmbedInput], size: int) -> list[ModelInputs]:
        prompts = [renderer.render(i, "", pictures(i)) for i in items]
        return [builder.build(prompts[start : start + size]) for start in range(0, len(prompts), size)]

    return lambda size: (chunk(sides[0], size), chunk(sides[1], size))


@pytest.fixture(autouse=True)
def same_seed() -> None:
    torch.manual_seed(5)


def loss_fn(queries: Tensor, candidates: Tensor) -> Tensor:
    return matryoshka(info_nce, (16, 64))(queries, candidates, torch.arange(len(queries)), symmetric=True)


def plain_step(encode_chunk: Encode, queries: list[ModelInputs], candidates: list[ModelInputs]) -> Tensor:
    """The textbook step over the same chunks."""
    encoded = [torch.cat([encode_chunk(chunk) for chunk in side]) for side in (queries, candidates)]
    loss = loss_fn(*encoded)
    loss.backward()
    return loss.detach()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    taken = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return taken


def assert_same(cached: dict[str, Tensor], plain: dict[str, Tensor], limit: float = 1e-5) -> None:
    assert cached.keys() == plain.keys()
    for name, gradient in plain.items():
        assert gradient.norm() > 0, name
        assert (cached[name] - gradient).norm() / gradient.norm() <= limit, name


@pytest.mark.parametrize(("size", "few"), [(1, 2), (1, 16), (2, 16), (3, 16)])
def test_every_gradient_equals_the_plain_steps_under_dropout(
    model: nn.Module,
    chunked: Callable[[int], tuple[list[ModelInputs], list[ModelInputs]]],
    size: int,
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grad_cache, "FEW", few)
    queries, candidates = chunked(size)
    assert any("pixel_values" in chunk for chunk in [*queries, *candidates])
    if size < 3:
        assert any("pixel_values" not in chunk for chunk in [*queries, *candidates])
    state = torch.get_rng_state()
    expected = plain_step(lambda chunk: encode(model, chunk), queries, candidates)
    after = torch.get_rng_state()
    plain = gradients(model)
    assert len(plain) == sum(p.requires_grad for p in model.parameters())

    torch.set_rng_state(state)
    loss = grad_cache_step(lambda chunk: encode(model, chunk), queries, candidates, loss_fn)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert_same(gradients(model), plain)
    assert torch.equal(torch.get_rng_state(), after), "the next step would draw other numbers"


@pytest.mark.parametrize("name", sorted(set(LossSection.model_fields) - {"matryoshka"}))
def test_every_loss_of_a_recipe_has_the_plain_steps_gradients(
    model: nn.Module, chunked: Callable[[int], tuple[list[ModelInputs], list[ModelInputs]]], name: str
) -> None:
    settings = {
        "info_nce": {"hardest": 2, "false_negative_margin": 0.1, "hardness": 2.0},
        "one_to_k": {"k": 2},
    }
    objective = LossSection.model_validate({name: settings.get(name, {}), "matryoshka": {"dimensions": [16]}})
    queries, candidates = chunked(2)
    own = torch.eye(4, 5) + torch.eye(5)[4]  # the last candidate belongs to every query
    guide = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    scores = torch.where(own > 0, torch.arange(20.0).view(4, 5) / 20, torch.nan)
    targets = Targets(torch.arange(4), torch.zeros(4, 5, dtype=torch.bool), own, scores, guide)

    def value(queries: Tensor, candidates: Tensor) -> Tensor:
        return objective.value(queries, candidates, targets)

    state = torch.get_rng_state()
    encoded = [torch.cat([encode(model, chunk) for chunk in side]) for side in (queries, candidates)]
    torch.autograd.backward(value(*encoded))
    plain = gradients(model)
    torch.set_rng_state(state)
    grad_cache_step(lambda chunk: encode(model, chunk), queries, candidates, value)
    assert_same(gradients(model), plain)


def test_dropout_is_live(
    model: nn.Module, chunked: Callable[[int], tuple[list[ModelInputs], list[ModelInputs]]]
) -> None:
    queries, _ = chunked(1)
    assert not torch.equal(encode(model, queries[0]), encode(model, queries[0]))


def test_chunks_do_not_change_the_gradient_without_dropout(
    model: nn.Module, chunked: Callable[[int], tuple[list[ModelInputs], list[ModelInputs]]]
) -> None:
    model.eval()
    try:
        plain_step(lambda chunk: encode(model, chunk), *chunked(8))
        plain = gradients(model)
        grad_cache_step(lambda chunk: encode(model, chunk), *chunked(1), loss_fn)
        assert_same(gradients(model), plain, 1e-4)  # other padding, other order of float32 sums
    finally:
        model.train()


def test_scale_multiplies_the_gradient_but_not_the_loss(
    model: nn.Module, chunked: Callable[[int], tuple[list[ModelInputs], list[ModelInputs]]]
) -> None:
    state = torch.get_rng_state()
    first = grad_cache_step(lambda chunk: encode(model, chunk), *chunked(2), loss_fn)
    plain = {name: gradient / 4 for name, gradient in gradients(model).items()}
    torch.set_rng_state(state)
    assert grad_cache_step(lambda chunk: encode(model, chunk), *chunked(2), loss_fn, scale=0.25) == first
    assert_same(gradients(model), plain)


@pytest.mark.fast
def test_one_chunk_per_side_is_encoded_once_and_so_is_the_last_of_a_few() -> None:
    weight = nn.Parameter(torch.eye(3))
    seen: list[Tensor] = []

    def encode_chunk(chunk: Tensor) -> Tensor:
        seen.append(chunk)
        return chunk @ weight

    def difference(queries: Tensor, candidates: Tensor) -> Tensor:
        return (queries - candidates).square().sum()

    rows = torch.arange(12.0).reshape(4, 3)
    grad_cache_step(encode_chunk, [rows], [rows.flip(0)], difference)
    assert len(seen) == 2
    expected = weight.grad
    weight.grad = None
    grad_cache_step(encode_chunk, [rows[:2], rows[2:]], [rows.flip(0)[:2], rows.flip(0)[2:]], difference)
    assert len(seen) == 2 + 4 + 3
    torch.testing.assert_close(weight.grad, expected)
    weight.grad = None
    seen.clear()
    many = torch.ones(grad_cache.FEW // 2 + 1, 1, 3)
    grad_cache_step(encode_chunk, list(many), list(many), difference)
    assert len(seen) == 2 * 2 * len(many)


@pytest.mark.fast
def test_what_the_loss_holds_is_let_go_before_chunks_are_encoded_again() -> None:
    weight = nn.Parameter(torch.eye(3))
    mask = torch.ones(4, 4)
    alive, while_encoding = weakref.ref(mask), list[bool]()

    def encode_chunk(chunk: Tensor) -> Tensor:
        while_encoding.append(alive() is not None)
        return chunk @ weight

    def held(mask: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda queries, candidates: (queries @ candidates.T * mask).sum()

    objectives = [held(mask)]
    del mask
    grad_cache_step(encode_chunk, list(torch.ones(2, 2, 3)), list(torch.ones(2, 2, 3)), objectives.pop())
    assert while_encoding == [True] * 4 + [False] * 3


@pytest.mark.fast
def test_a_side_without_chunks_is_refused() -> None:
    with pytest.raises(ValueError, match="0 of queries and 1 of candidates"):
        grad_cache_step(lambda chunk: chunk, [], [torch.ones(1, 2)], lambda q, c: (q * c).sum())
