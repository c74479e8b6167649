"""Preview: descriptions, contact sheet and choice of images."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from policies import POLICIES, noise, transforms

from kindsight.augment import Augment, augment_images
from kindsight.augment.preview import SheetRow, contact_sheet, make_preview, write_sheet
from kindsight.augment.sampling import describe_transforms, sample_transforms, transforms_to_dict
from kindsight.dataset import ImageDataset
from kindsight.errors import DatasetError, SettingsError
from kindsight.images import InputSpec, read_image, resize_image


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, []),
        ({"flip": (1, 1)}, ["mirrored", "upside down"]),
        ({"rotation": 12.4}, ["rotated 12° left"]),
        ({"rotation": -90}, ["rotated 90° right"]),
        ({"rotation": 0.3}, []),
        ({"shift": (0.1, -0.25)}, ["10% down", "25% left"]),
        ({"shift": (-0.1, 0.25)}, ["10% up", "25% right"]),
        ({"size": (0.8, 0.8)}, ["size \u00d7 0.80"]),
        ({"size": (1.001, 1.25)}, ["width \u00d7 1.25"]),
        ({"shear": (-5, 9)}, ["falling 5°", "leaning 9° right"]),
        ({"corners": 0.1}, ["perspective"]),
        ({"brightness": 1.3, "contrast": 1.001}, ["brightness \u00d7 1.30"]),
        ({"saturation": 0, "sharpness": 1.5}, ["saturation \u00d7 0.00", "sharpness \u00d7 1.50"]),
        ({"hue": -7}, ["hue -7°"]),
        ({"posterize": 5, "solarize": 128}, ["5 bits per channel", "inverted from 128"]),
        ({"autocontrast": 1, "equalize": 1}, ["contrast stretched", "equalized"]),
        ({"blur": 1.25, "noise": 8, "jpeg_quality": 40}, ["blur 1.2 px", "noise 8", "JPEG 40"]),
        ({"erased": (0.1, 0.1, 0.5, 0.4)}, ["20% erased"]),
        ({"erased": (0.1, 0.1, 0, 0.4)}, []),
    ],
)
def test_descriptions_of_changes(values, words):
    assert describe_transforms(transforms(2, **values), 1) == words


@given(POLICIES, st.integers(0, 99))
def test_changes_as_json(policy, seed):
    sampled = sample_transforms(policy, seed=seed, epoch=1, index=np.arange(2))
    record = transforms_to_dict(sampled, 1)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record.get("rotation", 0) == sampled.rotation[1]
    if not policy.changes_images:
        assert record == {}


def test_images_stand_in_rows_and_columns_and_captions_below_them():
    rows = [
        SheetRow(noise(k, 3, 150, 200), [["short"], ["a long caption", "of parts", "x" * 99], []])
        for k in range(2)
    ]
    sheet = np.asarray(contact_sheet("name", ["about it"], ["a", "b", "c"], rows))
    found = []
    for row in rows:
        for image in row.images:
            # The place of an image is where its first row of pixels is.
            first = image[0, :3].reshape(-1)
            windows = np.lib.stride_tricks.sliding_window_view(sheet, (3, 3), axis=(1, 2))
            ((y, x, _),) = np.argwhere(
                (windows.transpose(0, 1, 2, 3, 4).reshape(*windows.shape[:3], -1) == first).all(-1)
            )
            assert np.array_equal(sheet[y : y + 150, x : x + 200], image)
            found.append((int(y), int(x)))
    (y, x), step = found[0], 200 + 14
    below = found[3][0]
    assert found == [(top, x + k * step) for top in (y, below) for k in range(3)]
    assert below > y + 150 + 3 * 16
    # Captions are there, in their own column: the third image has none.
    caption = sheet[y + 152 : below, :]
    assert (caption[:, x : x + 200] < 128).any() and (caption[:, x + step : x + 400] < 128).any()
    assert (caption[:, x + 2 * step :] == 255).all()


def test_small_images_are_shown_larger_pixel_by_pixel():
    image = noise(1, 1, 50, 60)
    sheet = np.asarray(contact_sheet("n", [], ["a"], [SheetRow(image, [[]])]))
    large = image[0].repeat(3, axis=0).repeat(3, axis=1)
    inner = sheet[:, 28 : 28 + 180]
    top = next(y for y in range(len(inner)) if np.array_equal(inner[y], large[0]))
    assert np.array_equal(inner[top : top + 150], large)


def test_names_with_unprintable_characters():
    rows = [SheetRow(noise(1, 1, 30, 30), [["a\nb\udcff\x1b[31m 猫.jpg"]])]
    assert contact_sheet("", [], [""], rows).size[1] > 128


@pytest.mark.parametrize("ending", ["png", "JPG", "jpeg", "webp"])
def test_a_sheet_is_written_in_the_format_of_its_ending(tmp_path, ending):
    sheet = Image.new("RGB", (40, 30), (10, 200, 30))
    write_sheet(tmp_path / f"a.{ending}", sheet)
    with Image.open(tmp_path / f"a.{ending}") as image:
        assert image.size == (40, 30)
        assert image.format == {"JPG": "JPEG"}.get(ending, ending.upper())
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{ending}"]


def test_other_formats_of_a_sheet_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"must end in \.png.*got .*a\.pdf"):
        write_sheet(tmp_path / "a.pdf", Image.new("RGB", (4, 3)))


# Choosing images --------------------------------------------------------------------------------


def test_a_preview_shows_what_augmenting_makes_of_the_images(photos):
    policy = Augment.recipe("strong")
    spec = InputSpec(48, 56, fit="crop")
    made = make_preview(photos, policy, spec=spec, images=4, copies=3, seed=7, epoch=2)
    dataset = ImageDataset.from_folder(photos, labelled=False)
    assert made.found == len(dataset) and len(made.rows) == 4
    sheet = np.asarray(made.sheet).reshape(-1)
    for row in made.rows:
        assert row.path == dataset.path[row.index]
        image = resize_image(read_image(photos / row.path, target=spec.size), spec)
        for view, drawn_ in enumerate(row.changes):
            index = np.array([row.index])
            sampled = sample_transforms(policy, seed=7, epoch=2 + view, index=index)
            assert drawn_ == transforms_to_dict(sampled, 0)
            seen = augment_images(image[None], policy, seed=7, epoch=2 + view, index=index)
            line = seen[0, 20].repeat(3, axis=0).tobytes()  # shown three times as large
            assert line in sheet.tobytes()


def test_images_come_from_all_folders_in_turn(photos):
    made = make_preview(photos, Augment(), images=6, copies=1, spec=InputSpec(16, 16))
    folders = [row.path.split("/")[0] for row in made.rows]
    assert sorted(folders) == ["bar", "bar", "chequer", "chequer", "ring", "ring"]
    assert len({row.path for row in made.rows}) == 6
    again = make_preview(photos, Augment(), images=6, copies=1, spec=InputSpec(16, 16))
    other = make_preview(photos, Augment(), images=6, copies=1, seed=1, spec=InputSpec(16, 16))
    assert again.rows == made.rows and other.rows != made.rows


def test_unreadable_images_are_skipped_with_a_reason(photos):
    made = make_preview(photos, Augment(), images=500, copies=1, spec=InputSpec(8, 8))
    assert made.found == 94 and len(made.rows) == 91
    assert len(made.skipped) == 3
    assert any("cut.jpg" in reason for reason in made.skipped)


def test_a_folder_without_readable_images_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"None of the 1 images is readable.*a\.png"):
        make_preview(tmp_path, Augment())


def test_a_sheet_that_would_be_huge_is_refused(photos):
    with pytest.raises(SettingsError, match="at most 100 million pixels"):
        make_preview(photos, Augment(), images=1000, copies=100)
    with pytest.raises(SettingsError, match="at most 100 million pixels"):
        make_preview(photos, Augment(), spec=InputSpec(1, 8192), images=1, copies=1)


def test_images_in_memory_are_previewed():
    dataset = ImageDataset.from_arrays(noise(1, 3, 20, 20))
    made = make_preview(dataset, Augment(rotation=9), images=3, copies=2, spec=InputSpec(20, 20))
    assert sorted(row.index for row in made.rows) == [0, 1, 2]


def test_the_sheet_does_not_import_matplotlib(environment):
    import subprocess

    code = (
        "import sys, numpy as np\n"
        "from kindsight.augment.preview import SheetRow, contact_sheet\n"
        "contact_sheet('a', ['b'], ['c'], [SheetRow(np.zeros((1, 9, 9, 3), np.uint8), [['d']])])\n"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
