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


@pytest.mark.parametrize(
    ("before", "after", "edit"),
    [
        ("a man, wearing jacket, red pants", "a man, wearing jacket, teal pants", "the same, wearing teal pants"),
        ("a man, wearing jacket, red pants", "a man, wearing chain mail, red pants", "the same, wearing chain mail"),
        (
            "a man with dark skin and pink bangs hair, wearing jacket",
            "a man with dark skin and dark blonde bangs hair, wearing jacket",
            "the same, with dark blonde bangs hair",
        ),
        ("an orc man with red hair, walking", "an orc man with blue hair, walking", "the same, with blue hair"),
        (
            "a man with light skin and red hair, walking",
            "a man with dark skin and red hair, walking",
            "the same, with dark skin",
        ),
        ("a man with light skin, walking", "an orc man, walking", "the same, as an orc man"),
        ("an orc man with red hair, walking", "a dark elf man with red hair, walking", "the same, as a dark elf man"),
    ],
)
def test_a_clip_edit_says_the_one_thing_that_changes(before: str, after: str, edit: str) -> None:
    assert rows.clip_edit(before, after) == edit


@pytest.mark.parametrize("after", ["a man, walking", "a woman, running", "a man, walking, facing left"])
def test_no_edit_without_exactly_one_change(after: str) -> None:
    assert rows.clip_edit("a man, walking", after) is None


def test_objects_questions_and_wishes() -> None:
    assert rows.object_text("#0099ff", "square", 1) == "the blue square in the middle box"
    assert rows.object_text("Yellow", "circle", 0) == "the yellow circle in the left box"
    assert rows.look_text("left") == "Look at the left object."
    assert rows.gender_edit("woman") == "the same, as a woman"
    assert rows.chart_answer("mean", "IMDB_Rating") == "IMDB Rating"
    assert rows.chart_answer("count", "") == "count"
    assert rows.caption_text({"caption": None}) == ""
    assert rows.caption_text({"caption": "word " * 80}) == " ".join(["word"] * 60)
