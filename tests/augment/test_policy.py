"""Policies: allowed values, text, files, recipes and Keras's arguments."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from policies import POLICIES

from kindsight.augment import Augment, parse_augment
from kindsight.augment.policy import RECIPES
from kindsight.augment.settings import RULES
from kindsight.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@given(POLICIES)
def test_a_policy_survives_every_serialisation(policy):
    assert eval(repr(policy), {"Augment": Augment}) == policy  # noqa: S307 (our own text)
    assert Augment.from_dict(policy.to_dict()) == policy
    assert Augment.from_dict(tomllib.loads(policy.to_toml())) == policy
    assert hash(Augment.from_dict(policy.to_dict())) == hash(policy)
    assert str(policy).isprintable()


@pytest.mark.parametrize("name", RULES)
def test_every_setting_is_written_and_read(name):
    other = {
        "horizontal_flip": True,
        "vertical_flip": True,
        "auto": True,
        "fill": "wrap",
        "fill_value": (1, 2, 3),
        "jpeg_quality": 30,
        "aspect": 1.5,
    }.get(name, 0.125)
    policy = Augment(**{name: other})
    assert policy != Augment()
    assert list(policy.to_dict()) == list(RULES)
    assert Augment.from_dict(policy.to_dict()) == policy
    assert repr(policy) == f"Augment({name}={other!r})"


def test_all_settings_are_in_the_rules_and_in_the_docstring():
    settings = [name for name in Augment.__dataclass_fields__ if name != "notes"]
    assert settings == list(RULES)
    for name in settings:
        assert f"    {name}" in Augment.__doc__ or f", {name}" in Augment.__doc__, name


def test_short_forms_of_factors_and_fractions():
    policy = Augment(scale=0.25, shift=0.5, brightness=np.float32(0.5), fill_value=7)
    assert policy == Augment(
        scale=(0.75, 1.25), shift=[0.5, 0.5], brightness=np.array([0.5, 1.5]), fill_value=(7, 7, 7)
    )
    assert (policy.scale, policy.shift) == ((0.75, 1.25), (0.5, 0.5))
    assert repr(policy) == "Augment(shift=0.5, scale=0.25, fill_value=7, brightness=0.5)"


def test_the_widest_spread_is_within_the_bounds():
    # In floating point, 1 - 0.9 is a little less than 0.1.
    assert Augment(scale=0.9).scale == (0.1, 1.9)
    assert Augment(contrast=1).contrast == (0, 2)


def test_a_policy_is_frozen_and_takes_keywords_only():
    with pytest.raises(AttributeError):
        Augment().rotation = 3
    with pytest.raises(TypeError):
        Augment(40)


def test_all_faults_are_reported_at_once():
    with pytest.raises(SettingsError) as caught:
        Augment(rotation=181, scale=(1.2, 0.8), fill="mirror", shift=True, jpeg_quality=70.5)
    lines = str(caught.value).splitlines()
    assert lines[0] == "`rotation` must be a number from 0 to 180 degrees; got 181."
    assert lines[1].startswith("`shift` must be a fraction from 0 to 1, or two:")
    assert lines[2].endswith("; got (1.2, 0.8).")
    assert lines[3] == ("`fill` must be one of nearest, reflect, wrap, constant; got 'mirror'.")
    assert lines[4] == "`jpeg_quality` must be an integer from 1 to 100; got 70.5."
    assert len(lines) == 5


@pytest.mark.parametrize(
    "setting",
    [
        {"rotation": -1},
        {"rotation": math.nan},
        {"rotation": "40"},
        {"rotation": None},
        {"rotation": 10**400},
        {"shift": (0.1, 0.2, 0.3)},
        {"shift": (0.1, "0.2")},
        {"scale": 0.95},
        {"scale": -0.1},
        {"scale": (0, 1)},
        {"brightness": (-0.1, 1)},
        {"brightness": (1, math.inf)},
        {"horizontal_flip": 1},
        {"horizontal_flip": "yes"},
        {"fill_value": (0, 0)},
        {"fill_value": 256},
        {"fill_value": (0, 0, 0.5)},
        {"jpeg_quality": 0},
        {"perspective": 0.25},
        {"mixup": -1},
    ],
)
def test_invalid_settings_are_refused(setting):
    with pytest.raises(SettingsError, match=f"^`{next(iter(setting))}` must be "):
        Augment(**setting)


def test_changes_images_and_mixes():
    assert not Augment().changes_images and not Augment().mixes
    assert not Augment(fill="wrap", fill_value=9).changes_images
    assert Augment(mixup=0.2).mixes and Augment(cutmix=1).mixes
    assert not Augment(mixup=0.2).changes_images
    for name in RULES:
        if name not in ("fill", "fill_value", "mixup", "cutmix"):
            value = {"jpeg_quality": 50, "aspect": 2}.get(
                name, True if "flip" in name or name == "auto" else 0.1
            )
            policy = Augment(**{name: value})
            assert policy.changes_images and not policy.mixes, name


# Recipes, files, the command line's text ----------------------------------------------------------


def test_the_classic_recipe_is_the_course_with_its_shear_in_radians():
    classic = Augment.recipe("classic")
    assert classic == Augment(
        rotation=40,
        shift=0.2,
        scale=(0.8333, 1.25),  # 1 / 1.2 and 1 / 0.8
        shear=11.5,  # 0.2 radians are 11.459 degrees
        horizontal_flip=True,
        fill="nearest",
    )
    assert str(classic) == (
        "rotation ±40°, shift ±20%, scale 0.833-1.25, shear ±11.5°, horizontal flip"
    )


def test_recipes():
    assert list(RECIPES) == ["none", "light", "classic", "strong", "auto"]
    assert Augment.recipe("none") == Augment() and str(Augment()) == "none"
    assert len({*RECIPES.values()}) == 5
    assert not any(policy.mixes for policy in RECIPES.values())
    assert Augment.recipe("auto").auto


def test_an_unknown_recipe_gets_a_suggestion():
    with pytest.raises(SettingsError, match=r"one of none, .*'clasic'\. Did you mean 'classic'\?"):
        Augment.recipe("clasic")


def test_a_policy_is_written_and_read_as_a_file(tmp_path):
    policy = Augment(rotation=12.5, shift=(0, 0.1), fill="constant", fill_value=(1, 2, 3))
    policy.write(tmp_path / "policy.toml")
    assert Augment.from_toml(tmp_path / "policy.toml") == policy
    text = (tmp_path / "policy.toml").read_text()
    assert "rotation = 12.5\n" in text and "cutmix = 0\n" in text


def test_a_file_may_start_from_a_recipe(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "classic"\nvertical_flip = true\nrotation = 180\n')
    expected = {**Augment.recipe("classic").to_dict(), "vertical_flip": True, "rotation": 180}
    assert Augment.from_toml(file) == Augment.from_dict(expected)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rotatoin = 3", "there is no setting 'rotatoin'. Did you mean 'rotation'"),
        ("rotation = 400", "mine.toml: `rotation` must be a number from 0 to 180"),
        ("rotation = ", "must be valid TOML"),
        ('recipe = "mild"', "`recipe` must be one of none"),
        ("recipe = 3", "`recipe` must be one of none"),
        ("rotation = '\\x00'", "`rotation` must be"),
        ("[rotation]\na = 1", "`rotation` must be"),
        ("x = " + "[" * 5000, "must be valid TOML"),
    ],
)
def test_invalid_files_are_refused(tmp_path, text, rule):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        Augment.from_toml(tmp_path / "mine.toml")
    assert rule in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "mine.toml").open("wb") as file:
        file.truncate(2**21)
    with pytest.raises(SettingsError, match="larger than 1 MB"):
        Augment.from_toml(tmp_path / "mine.toml")


def test_a_table_must_be_a_table():
    with pytest.raises(SettingsError, match="must be a table of settings; got list"):
        Augment.from_dict(["rotation"])


def test_parse_augment_takes_a_recipe_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_augment("strong") == Augment.recipe("strong")
    for name in ("mine.toml", "mine.cfg"):
        (tmp_path / name).write_text("rotation = 3")
        assert parse_augment(name) == Augment(rotation=3)
    with pytest.raises(SettingsError, match="none, light, classic, strong, auto, or a TOML file"):
        parse_augment("everything")
    with pytest.raises(SettingsError, match="Did you mean classic"):
        parse_augment("clasic")
    with pytest.raises(SettingsError, match=r"readable file; got absent.toml \(No such file"):
        parse_augment("absent.toml")


def test_str_of_a_policy():
    policy = Augment(
        rotation=5,
        shift=(0.1, 0),
        scale=0.5,
        aspect=1.25,
        vertical_flip=True,
        perspective=0.05,
        fill="reflect",
        brightness=0.3,
        hue=10,
        blur=1,
        noise=8,
        jpeg_quality=50,
        erasing=0.2,
        mixup=0.2,
        cutmix=1,
        auto=True,
    )
    assert str(policy) == (
        "rotation ±5°, shift ±10% down, ±0% across, scale 0.5-1.5, aspect to 1.25, vertical flip, "
        "perspective ±5%, automatic, brightness 0.7-1.3, hue ±10°, blur to 1 px, noise to 8 "
        "levels, JPEG down to 50, erasing to 20%, MixUp 0.2, CutMix 1, reflect fill"
    )


# ImageDataGenerator's arguments -------------------------------------------------------------------


def test_other_keras_arguments_become_settings_without_notes():
    policy = Augment.from_keras(
        rotation_range=25,
        width_shift_range=0.1,
        height_shift_range=0.3,
        shear_range=5,
        fill_mode="constant",
        cval=128.0,
        vertical_flip=True,
    )
    assert policy == Augment(
        rotation=25,
        shift=(0.3, 0.1),
        shear=5,
        fill="constant",
        fill_value=128,
        vertical_flip=True,
    )
    assert policy.notes == ()
    assert Augment.from_keras() == Augment()


@pytest.mark.parametrize(
    ("arguments", "policy", "note"),
    [
        (
            {"shear_range": 0.2},
            Augment(shear=11.5),
            "shear_range=0.2 is interpreted as radians, 11.5",
        ),
        ({"shear_range": 1}, Augment(shear=1), None),
        ({"rotation_range": 360}, Augment(rotation=180), None),
        ({"zoom_range": 0.2}, Augment(scale=(0.8333, 1.25)), "keeps the aspect ratio"),
        ({"zoom_range": [0.5, 1.0]}, Augment(scale=(1, 2)), "zoom_range=[0.5, 1.0] keeps"),
        ({"zoom_range": (1, 1)}, Augment(), None),
        ({"brightness_range": (0.5, 1.5)}, Augment(brightness=0.5), "the brightness only"),
        # 51 of 127.5 is 0.4, whether as 51 levels or as 0.2 of 255
        ({"channel_shift_range": 51}, Augment(brightness=0.4), "up to 51 levels"),
        ({"channel_shift_range": 0.2}, Augment(brightness=0.4), "up to 51 levels"),
        (
            {"channel_shift_range": 51, "brightness_range": [0.5, 2]},
            Augment(brightness=(0.3, 2.8)),
            "the brightness only",
        ),
        ({"rescale": 1 / 255}, Augment(), "rescale is ignored: pixels stay 0-255"),
        ({"validation_split": 0.2}, Augment(), "never augmented"),
        ({"width_shift_range": [0.1, -0.3]}, Augment(shift=(0, 0.3)), "not only those listed"),
    ],
)
def test_the_traps_of_keras_are_fixed_with_a_note(arguments, policy, note):
    made = Augment.from_keras(**arguments)
    assert made == policy
    assert (note is None and made.notes == ()) or note in made.notes[0]


def test_shifts_in_pixels_need_the_size():
    policy = Augment.from_keras(width_shift_range=15, height_shift_range=15, size=(100, 150))
    assert policy == Augment(shift=(0.15, 0.1))
    with pytest.raises(SettingsError, match="width_shift_range=15 is in pixels"):
        Augment.from_keras(width_shift_range=15)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"rotation": 3}, "no argument rotation. Did you mean rotation_range"),
        ({"zca_whitening": True}, "zca_whitening changes every image in the same manner"),
        (
            {"preprocessing_function": abs},
            "preprocessing_function changes every image in the same manner",
        ),
        ({"rotation_range": "a"}, "this value: rotation_range='a'"),
        ({"zoom_range": 1.5}, "this value: zoom_range=1.5"),
        ({"zoom_range": (1, 2, 3)}, "this value: zoom_range="),
        ({"brightness_range": 0.5}, "this value: brightness_range=0.5"),
        ({"fill_mode": "mirror"}, "`fill` must be one of"),
        ({"cval": 300}, "`fill_value` must be an integer from 0 to 255"),
    ],
)
def test_invalid_keras_arguments_are_refused(arguments, rule):
    with pytest.raises(SettingsError) as caught:
        Augment.from_keras(**arguments)
    assert rule in str(caught.value)


def test_disabled_keras_arguments_are_accepted():
    assert Augment.from_keras(zca_whitening=False, preprocessing_function=None, zca_epsilon=1e-6)
