import re

import pytest

from mllm_embed.evaluation.perturbed_text import PERTURBATIONS, paraphrase, typos, upper_case, word_order

pytestmark = pytest.mark.fast

SENTENCE = "The graph shows a small house, a Woman with green hair and three letters from the postman."


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_text_is_always_perturbed_in_the_same_way(name: str) -> None:
    perturb = PERTURBATIONS[name]
    assert perturb(SENTENCE) == perturb(SENTENCE) != SENTENCE


def test_choices_are_made_by_hash_and_so_the_same_everywhere() -> None:
    assert typos("waving hand: dark skin tone") == "waviing hnad: dark skin tone"
    assert word_order("man in a steamy room") == "room steamy in a man"


def test_every_third_long_word_is_mistyped_and_no_other_changes() -> None:
    before, after = SENTENCE.split(), typos(SENTENCE).split()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 4  # of ten words of four letters or more
    for old, new in changed:
        assert len(re.sub(r"\W", "", old)) >= 4
        assert new[0] == old[0]
        assert abs(len(new) - len(old)) <= 1
        assert set(new) <= set(old)


@pytest.mark.parametrize("text", ["a to 7x", "", "日本"])
def test_a_text_without_long_words_has_no_typos(text: str) -> None:
    assert typos(text) == text


def test_capitals() -> None:
    assert upper_case("Flag: Côte d'Ivoire") == "FLAG: CÔTE D'IVOIRE"


@pytest.mark.parametrize("text", [SENTENCE, "red car", "green car", "one two three"])
def test_another_order_has_the_same_words(text: str) -> None:
    assert sorted(word_order(text).split()) == sorted(text.split())
    assert word_order(text) != text


def test_other_words_say_the_same() -> None:
    assert paraphrase("flag: Eritrea") == "a picture of banner: Eritrea"
    assert paraphrase("woman: dark skin tone") == "a picture of lady: dark complexion"
    assert paraphrase(SENTENCE).startswith("The plot depicts a little house, a Lady with green hair")
    assert paraphrase("woman") == "a picture of lady"  # no man is found inside it
    assert paraphrase("mailman") == "a picture of mailman"
