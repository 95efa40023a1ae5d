"""What the people of toy clips do: key frames of a skeleton's angles, and the poses between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Pose = Mapping[str, tuple[float, ...]]
    """What differs from `_REST`: a limb's swing forward, spread to its side and bend; the body's pitch and lift."""


def _mirrored(pose: Pose) -> Pose:
    """Return the pose with right and left exchanged."""
    other = {"right": "left", "left": "right"}
    return {" ".join(other.get(word, word) for word in part.split()): angles for part, angles in pose.items()}


_REST: Pose = {
    "right arm": (0, 12, 10),
    "left arm": (0, 12, 10),
    "right leg": (0, 4, 0),
    "left leg": (0, 4, 0),
    "body": (0, 0),
}
_STEP: Pose = {
    "right arm": (-30, 10, 15),
    "left arm": (30, 10, 15),
    "right leg": (32, 3, 5),
    "left leg": (-25, 3, 25),
}
_RUN: Pose = {
    "right arm": (-60, 10, 90),
    "left arm": (40, 10, 90),
    "right leg": (65, 3, 60),
    "left leg": (-40, 3, 60),
    "body": (15, 3),
}
_SQUAT: Pose = {"right leg": (70, 15, 130), "left leg": (70, 15, 130), "body": (25, 0)}
_AIMED: Pose = {"right arm": (85, 35, 110), "left arm": (90, 0, 0)}
_LUNGE: Pose = {
    "right arm": (85, -5, 0),
    "left arm": (70, -20, 30),
    "body": (15, 0),
    "right leg": (25, 4, 10),
    "left leg": (-20, 4, 0),
}
ACTIONS: dict[str, tuple[Pose, ...]] = {
    "walking": (_STEP, {}, _mirrored(_STEP), {}, _STEP),
    "running": (_RUN, _mirrored(_RUN), _RUN, _mirrored(_RUN), _RUN),
    "jumping": ({}, _SQUAT, {"right arm": (150, 20, 0), "left arm": (150, 20, 0), "body": (0, 12)}, _SQUAT, {}),
    "waving": (
        {},
        {"right arm": (100, 15, 10)},
        {"right arm": (115, 50, 45)},
        {"right arm": (100, 15, 10)},
        {"right arm": (115, 50, 45)},
        {},
    ),
    "clapping": tuple(
        {"right arm": (70, spread, 20), "left arm": (70, spread, 20)} for spread in (35, -30, 35, -30, 35, -30)
    ),
    "casting a spell": (
        {},
        {"right arm": (60, -25, 70), "left arm": (60, -25, 70)},
        {"right arm": (45, 50, 10), "left arm": (45, 50, 10)},
        {"right arm": (90, 55, 0), "left arm": (90, 55, 0)},
        {"right arm": (115, 55, 0), "left arm": (115, 55, 0)},
        {"right arm": (50, 40, 10), "left arm": (50, 40, 10)},
    ),
    "thrusting": (
        {},
        {"right arm": (-40, 15, 120), "left arm": (20, -10, 90)},
        {"right arm": (-40, 15, 120), "left arm": (20, -10, 90), "body": (10, 0)},
        _LUNGE,
        _LUNGE,
        {},
    ),
    "slashing": (
        {},
        {"right arm": (-40, 40, 40)},
        {"right arm": (10, 80, 20)},
        {"right arm": (70, 30, 0), "body": (10, 0)},
        {"right arm": (85, -35, 0), "body": (10, 0)},
        {"right arm": (70, -45, 10), "body": (10, 0)},
    ),
    "shooting a bow": (
        {},
        {"right arm": (70, 5, 30), "left arm": (90, 0, 0)},
        _AIMED,
        _AIMED,
        _AIMED,
        {"left arm": (90, 0, 0)},
    ),
    "kicking": (
        {},
        {"right leg": (-40, 4, 50)},
        {"right leg": (85, 4, 0), "body": (-12, 0)},
        {"right leg": (40, 4, 30)},
        {},
    ),
    "bowing": ({}, {"body": (40, 0)}, {"body": (80, 0)}, {"body": (80, 0)}, {"body": (40, 0)}, {}),
    "sitting down": (
        {},
        {"right leg": (45, 8, 70), "left leg": (45, 8, 70)},
        {"right leg": (90, 10, 90), "left leg": (90, 10, 90)},
        {"right leg": (90, 10, 20), "left leg": (90, 10, 20)},
    ),
    "falling down": (
        {},
        {"body": (20, 0), "right leg": (40, 10, 80), "left leg": (40, 10, 80)},
        {
            "body": (60, 0),
            "right leg": (60, 15, 130),
            "left leg": (60, 15, 130),
            "right arm": (60, 20, 0),
            "left arm": (60, 20, 0),
        },
        {
            "body": (95, 0),
            "right leg": (30, 15, 110),
            "left leg": (30, 15, 110),
            "right arm": (150, 30, 0),
            "left arm": (150, 30, 0),
        },
        {
            "body": (95, 0),
            "right leg": (-80, 15, 10),
            "left leg": (-80, 15, 10),
            "right arm": (160, 40, 0),
            "left arm": (160, 40, 0),
        },
    ),
}
"""Key frames by action, evenly spaced in time; degrees, the lift in pixels."""


def pose_at(
    action: str, time: float, *, vigour: float = 1.0, left_handed: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Return the whole pose at `time` of an action, from 0 to 1, between the two nearest key frames.

    Args:
        action: its name.
        time: of the action.
        vigour: how far the limbs are from rest, where 1 is as the key frames have it; the body pitches as these say,
            since who falls lies flat at last.
        left_handed: exchanges right and left.
    """
    keys = ACTIONS[action]
    place = time * (len(keys) - 1)
    before = min(int(place), len(keys) - 2)
    share = place - before
    first, second = (_mirrored(key) if left_handed else key for key in keys[before : before + 2])
    pose = {}
    for part, angles in _REST.items():
        rest = np.asarray(angles, dtype=np.float64)
        between = (1 - share) * np.asarray(first.get(part, angles)) + share * np.asarray(second.get(part, angles))
        pose[part] = between if part == "body" else rest + vigour * (between - rest)
    return pose


__all__ = ["ACTIONS", "pose_at"]
