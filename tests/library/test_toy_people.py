"""Drawn clips: what a caption says is what is drawn, and an edit changes one thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
import PIL.Image
import pytest

from mllm_embed.errors import InvalidInput
from mllm_embed.toy_people import (
    ACTIONS,
    CLOTHES,
    FRAMES,
    HAIRS,
    PLAIN,
    SIDE,
    SKINS,
    VIEWS,
    Person,
    clips,
    draw,
)
from mllm_embed.toy_poses import pose_at

pytestmark = pytest.mark.fast

ANYBODY = Person("olive", "pink", "blue", "orange", "walking", "facing the viewer")
CLIPS = clips(300, seed=3)


def pixels(image: PIL.Image.Image) -> Counter[tuple[int, ...]]:
    return Counter(map(tuple, np.asarray(image).reshape(-1, 3).tolist()))


def ink(image: PIL.Image.Image) -> tuple[int, int, int, int]:
    """Box of everything that is not white: left, top, right, bottom."""
    rows, columns = np.nonzero((np.asarray(image) < 250).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_equal_seeds_give_equal_clips_and_fewer_are_the_beginning_of_more() -> None:
    assert clips(20, seed=3) == CLIPS[:20]
    assert clips(20, seed=4) != CLIPS[:20]
    assert len({clip.person for clip in CLIPS}) == len(CLIPS)


def test_a_caption_names_all_that_is_known() -> None:
    for clip in CLIPS:
        assert all(value in clip.caption for value in asdict(clip.person).values())


def test_every_value_occurs() -> None:
    choices: dict[str, Mapping[str, object]] = {"skin": SKINS, "hair": HAIRS, "top": CLOTHES, "view": VIEWS}
    for key, names in {**choices, "trousers": CLOTHES, "action": ACTIONS}.items():
        assert {getattr(clip.person, key) for clip in CLIPS} == set(names)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_action_moves_and_stays_in_the_picture(action: str, view: str) -> None:
    frames = draw(replace(ANYBODY, action=action, view=view))
    assert [frame.size for frame in frames] == [(SIDE, SIDE)] * FRAMES
    assert len({frame.tobytes() for frame in frames}) > 1
    for frame in frames:
        left, top, right, bottom = ink(frame)
        assert 0 < left < right < SIDE
        assert 0 <= top < bottom < SIDE


def test_no_two_actions_look_alike_from_any_side() -> None:
    for view in VIEWS:
        drawn = {b"".join(f.tobytes() for f in draw(replace(ANYBODY, action=action, view=view))) for action in ACTIONS}
        assert len(drawn) == len(ACTIONS)


def test_colours_are_where_they_are_said_to_be() -> None:
    seen = pixels(draw(ANYBODY)[1])
    for name, colours in (("skin", SKINS), ("hair", HAIRS), ("top", CLOTHES), ("trousers", CLOTHES)):
        assert seen[colours[getattr(ANYBODY, name)]] > 20, name


def test_eyes_are_seen_from_the_front_and_not_from_behind() -> None:
    assert pixels(draw(ANYBODY)[1])[(25, 25, 25)] > 0
    assert pixels(draw(replace(ANYBODY, view="facing away"))[1])[(25, 25, 25)] == 0


def test_left_is_the_mirror_image_of_right_for_what_both_sides_do_alike() -> None:
    bow = replace(ANYBODY, action="bowing")
    right, left = (draw(replace(bow, view=f"facing {side}")) for side in ("right", "left"))
    for one, other in zip(right, left, strict=True):
        mirrored = np.asarray(other)[:, ::-1].astype(int)
        assert (np.abs(np.asarray(one).astype(int) - mirrored).max(axis=2) > 60).mean() < 0.05
    assert ink(right[2])[2] - SIDE / 2 > SIDE / 2 - ink(right[2])[0], "who bows to the right reaches to the right"


def test_who_falls_down_ends_lower_and_who_jumps_leaves_the_ground() -> None:
    fallen, jump = (
        draw(replace(ANYBODY, action=action, view="facing right")) for action in ("falling down", "jumping")
    )
    assert ink(fallen[-1])[1] > ink(fallen[0])[1] + 15
    assert min(ink(frame)[3] for frame in jump) < ink(jump[0])[3] - 4


def test_looks_vary_and_captions_do_not_say_so() -> None:
    looks = [clip.look for clip in CLIPS]
    assert len(set(looks)) == len(looks)
    for values in (
        {look.outlined for look in looks},
        {look.smooth for look in looks},
        {look.left_handed for look in looks},
    ):
        assert values == {True, False}
    assert 0.4 < sum(look.background == PLAIN.background for look in looks) / len(looks) < 0.6


def test_a_look_is_seen() -> None:
    plain = pixels(draw(ANYBODY)[1])
    outlined = pixels(draw(ANYBODY, replace(PLAIN, outlined=True))[1])
    assert outlined[(25, 25, 25)] > plain[(25, 25, 25)] + 100
    assert len(pixels(draw(ANYBODY, replace(PLAIN, smooth=False))[1])) < len(plain), "no colours between others"
    assert pixels(draw(ANYBODY, replace(PLAIN, background=(200, 220, 240)))[1])[(200, 220, 240)] > SIDE * SIDE / 2
    full, small = (ink(draw(ANYBODY, replace(PLAIN, scale=scale))[1]) for scale in (1.0, 0.75))
    assert full[3] - full[1] > 1.2 * (small[3] - small[1])
    assert ink(draw(ANYBODY, replace(PLAIN, head=20))[1])[1] < ink(draw(ANYBODY, replace(PLAIN, head=14))[1])[1]
    thick, thin = (pixels(draw(ANYBODY, replace(PLAIN, bulk=bulk))[1]) for bulk in (1.25, 0.8))
    assert thick[(255, 255, 255)] < thin[(255, 255, 255)]


def test_who_is_left_handed_does_the_same_with_the_other_hand() -> None:
    wave = replace(ANYBODY, action="waving")
    for right, left in zip(draw(wave), draw(wave, replace(PLAIN, left_handed=True)), strict=True):
        mirrored = np.asarray(left)[:, ::-1].astype(int)
        assert (np.abs(np.asarray(right).astype(int) - mirrored).max(axis=2) > 60).mean() < 0.05
    hand = ink(draw(wave)[2])
    assert SIDE / 2 - hand[0] > hand[2] - SIDE / 2 + 3, "the right hand is at the left of who faces the viewer"


def test_a_part_of_an_action_is_seen() -> None:
    fall = replace(ANYBODY, action="falling down", view="facing right")
    whole, middle = draw(fall), draw(fall, replace(PLAIN, begins=0.4, ends=0.6))
    assert middle[0] == whole[2], "two fifths of it"
    assert ink(whole[0])[1] < ink(middle[0])[1] < ink(middle[-1])[1] < ink(whole[-1])[1]


def test_long_arms_reach_farther_and_a_vigorous_step_is_longer() -> None:
    spell = replace(ANYBODY, action="casting a spell")
    far, near = (ink(draw(spell, replace(PLAIN, reach=reach))[4]) for reach in (1.5, 0.9))
    assert far[2] - far[0] > near[2] - near[0] + 6
    step = replace(ANYBODY, view="facing right")
    long, short = (ink(draw(step, replace(PLAIN, vigour=vigour))[0]) for vigour in (1.2, 0.8))
    assert long[2] - long[0] > short[2] - short[0]
    calm, wild = (pose_at("falling down", 1, vigour=vigour) for vigour in (1.0, 1.2))
    assert calm["body"].tolist() == wild["body"].tolist(), "who falls lies flat"
    assert abs(wild["right leg"][0]) > abs(calm["right leg"][0])


def test_an_edit_changes_one_thing_and_asks_for_it() -> None:
    kinds = set()
    for clip in CLIPS:
        before, after = asdict(clip.person), asdict(clip.edit.person)
        (changed,) = [key for key in before if before[key] != after[key]]
        kinds.add(changed)
        assert clip.edit.sentence.startswith("the same, ")
        assert after[changed] in clip.edit.sentence
        assert changed in clip.edit.sentence
    assert kinds == {"skin", "hair", "top", "trousers"}


def test_more_clips_than_there_are_different_ones_are_refused() -> None:
    with pytest.raises(InvalidInput, match="there are 145600 different clips, but 145601 are asked for"):
        clips(145_601, seed=0)
