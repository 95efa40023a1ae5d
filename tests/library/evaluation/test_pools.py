import hashlib

import pytest

from mllm_embed.evaluation.pools import Selection, build_pool, hash_order

pytestmark = pytest.mark.fast

ITEMS = [
    (f"id{i}", split) for i, split in enumerate(["train"] * 10 + ["test_new"] * 2 + ["test"] * 2 + ["test_dup"] * 3)
]


def pool(size: int | None, selection: Selection | None = None) -> list[tuple[str, str]]:
    chosen = selection or Selection()
    return build_pool(ITEMS, chosen, size, name=lambda item: item[0], split=lambda item: item[1])


def test_hash_order_is_that_of_sha256_hex() -> None:
    names = ["noto:1f600", "noto:1f601", "fluent-3d:1f600"]
    assert hash_order(names, str) == sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def test_a_pool_takes_all_held_out_items_and_fills_with_train_items_in_hash_order() -> None:
    splits = [split for _, split in pool(7)]
    assert splits[4:] == ["train"] * 3
    assert sorted(splits[:4]) == ["test", "test", "test_new", "test_new"]
    train = hash_order((name for name, split in ITEMS if split == "train"), str)
    assert [name for name, _ in pool(7)[4:]] == train[:3]


def test_a_pool_does_not_depend_on_row_order() -> None:
    turned = build_pool(ITEMS[::-1], Selection(), 7, name=lambda item: item[0], split=lambda item: item[1])
    assert turned == pool(7)


def test_duplicates_of_train_rows_are_ignored() -> None:
    assert all(split != "test_dup" for _, split in pool(100))
    assert len(pool(100)) == 14


def test_a_pool_without_size_has_held_out_items_only() -> None:
    assert len(pool(None)) == 4


def test_more_held_out_items_than_the_size_are_cut_in_hash_order() -> None:
    held_out = hash_order((name for name, split in ITEMS if split in ("test", "test_new")), str)
    assert [name for name, _ in pool(3)] == held_out[:3]


def test_equal_candidates_count_as_one_and_stay_together() -> None:
    rows = [(name, "same") for name in "abcd"] + [("e", "other"), ("f", "third")]
    chosen = build_pool(rows, Selection(), 2, name=lambda row: row[0], split=lambda _: "test", equal=lambda row: row[1])
    texts = [text for _, text in chosen]
    assert len(set(texts)) == 2
    assert texts.count("same") in (0, 4)
    same = build_pool(rows[:4], Selection(), 1, name=lambda row: row[0], split=lambda _: "test", equal=lambda _: "same")
    assert len(same) == 4


def test_the_limit_cuts_every_pool() -> None:
    assert len(pool(7, Selection(pool_limit=2))) == 2
    assert len(pool(None, Selection(pool_limit=2))) == 2


def test_another_prefix_holds_out_other_rows() -> None:
    selection = Selection(prefix="hidden")
    assert selection.is_held_out("hidden_new")
    assert not selection.is_held_out("test")
    assert not selection.is_held_out("hidden_dup")
    assert not selection.is_usable("test")


@pytest.mark.parametrize(
    ("split", "slices"), [("test", ("test",)), ("test_new", ("test", "test_new")), ("train", ("train",))]
)
def test_slices(split: str, slices: tuple[str, ...]) -> None:
    assert Selection().slices(split) == slices
