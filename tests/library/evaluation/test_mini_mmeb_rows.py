import pytest

from mllm_embed.evaluation import mini_mmeb_rows as rows

pytestmark = pytest.mark.fast


def test_icon_text_has_english_tags_only_and_at_most_four() -> None:
    row = {"name": "wifi", "tags": ["网络", "Wi-Fi", "dhis2:wifi", "°", "wifi", "radio", "Radio", "net", "air", "sea"]}
    assert rows.icon_text(row) == "wifi, Wi-Fi, radio, net, air"


@pytest.mark.parametrize("tags", [[], None])
def test_icon_text_without_tags_is_the_name(tags: list[str] | None) -> None:
    assert rows.icon_text({"name": "chart", "tags": tags}) == "chart"


def test_figure_text_is_cut_to_sixty_words() -> None:
    text = rows.figure_text({"alt": "  ".join(f"w{i}" for i in range(80))})
    assert text.split() == [f"w{i}" for i in range(60)]


def test_class_names_are_words() -> None:
    assert rows.class_name("people-body_part") == "people body part"


def test_tone_edit() -> None:
    assert rows.tone_edit("medium-dark") == "the same, with medium dark skin tone"


def test_truth_text() -> None:
    assert [rows.truth_text(True), rows.truth_text(False)] == ["true", "false"]


def test_emoji_and_story_text() -> None:
    assert rows.emoji_name({"label_en": "waving hand: dark skin tone"}) == "waving hand: dark skin tone"
    assert rows.story_text({"text_en": "One day,\n a  frog."}) == "One day, a frog."
