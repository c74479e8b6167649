"""The settings of a training: faults named together, and files that repeat a run."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindsight.errors import SettingsError
from kindsight.runs.settings import TrainSettings

INFINITE = float("inf")


def faults(**settings):
    with pytest.raises(SettingsError) as caught:
        TrainSettings(**{"data": "photos", **settings})
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"validation": -0.1},
            "`validation` must be a fraction from 0 to below 1, or a number of images",
        ),
        (
            {"validation": 1.0},
            "`validation` must be a fraction from 0 to below 1, or a number of images",
        ),
        (
            {"validation": 1},
            "`validation` must be a fraction from 0 to below 1, or a number of images",
        ),
        (
            {"validation": 1.5},
            "`validation` must be a fraction from 0 to below 1, or a number of images",
        ),
        (
            {"validation": float("nan")},
            "`validation` must be a fraction from 0 to below 1, or a number of images",
        ),
        (
            {"validation": INFINITE},
            "`validation` must be a fraction from 0 to below 1, or a number of images",
        ),
        (
            {"validation": "0.2"},
            "`validation` must be a fraction from 0 to below 1, or a number of images",
        ),
        ({"test": True}, "`test` must be a fraction from 0 to below 1, or a number of images"),
        ({"test": -INFINITE}, "`test` must be a fraction from 0 to below 1, or a number of images"),
        ({"test": 1e300}, "`test` must be a fraction from 0 to below 1, or a number of images"),
        ({"data": ""}, "`data` must be a folder or a file"),
        ({"data": 7}, "`data` must be a folder or a file"),
        ({"data": "a\0b"}, "`data` must be a folder or a file"),
        ({"runs": ""}, "`runs` must be a folder"),
        ({"runs": ["runs"]}, "`runs` must be a folder"),
        ({"run": 3}, "`run` must be a name or a path"),
        ({"run": ""}, "`run` must be a name or a path"),
        ({"run": ".."}, "`run` must be a name or a path"),
        ({"run": "."}, "`run` must be a name or a path"),
        ({"head": "bent"}, "`head` must be one of"),
        ({"size": [64]}, "`size` must be"),
        ({"seed": 1.0}, "`seed` must be a whole number"),
    ],
)
def test_invalid_settings_are_errors(settings, message):
    (fault,) = faults(**settings)
    assert fault.startswith(message) and "; got " in fault


def test_all_faults_are_named_at_once():
    found = faults(head="x", seed=-1, validation=-1, test="x", runs="", model="x", data="")
    assert len(found) == 7


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ((0, 0), (0, 0)),
        ((0.2, 0.0), (0.2, 0.0)),
        ((0.999, 0.001), (0.999, 0.001)),
        ((50, 7), (50, 7)),
        ((50.0, 2.0), (50, 2)),
    ],
)
def test_shares_and_numbers_of_images(given, parts):
    settings = TrainSettings("photos", validation=given[0], test=given[1])
    found = settings.split_settings().sizes()
    assert found == {"validation": parts[0], "test": parts[1]}
    # A number of images is a whole number for the split, however it was written.
    assert [type(value) for value in found.values()] == [type(value) for value in parts]


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "settings.toml"
    plain = TrainSettings("photos")
    plain.write(file)
    assert TrainSettings.from_toml(file) == plain
    assert "run " not in file.read_text() and 'data = "photos"' in file.read_text()
    full = TrainSettings(
        data="my photos",
        runs="elsewhere",
        run="first",
        weights="none",
        tta_flips=2,
        tta_crops=3,
        size=96,
        resize="pad",
        head="rbf",
        class_weight="balanced",
        validation=0.1,
        test=25,
        seed=2**62,
        workers=3,
        validation_data="kept back",
        label_from=r"^(.+?)_\d+",
        group_from="(?P<group>p[0-9]+)",
        columns={"label": "species", "path": "where"},
        label_names=["ash", "elm"],
        pixel_shape="20x30x3",
        root="elsewhere",
    )
    full.write(file)
    assert TrainSettings.from_toml(file) == full
    assert set(full.to_dict()) == {
        *("data", "runs", "run", "model", "weights", "size", "resize", "head", "tta_flips"),
        *("tta_crops", "check", "verify", "leakage", "split_by", "known_kept"),
        *("class_weight", "validation", "test", "seed", "workers", "validation_data", "label_from"),
        *("group_from", "columns", "label_names", "pixel_shape", "root", "follow_links"),
    }
    assert full.label_names == ("ash", "elm")
    assert full.data_options().shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_from": "("}, "`label_from` must be a regular expression with a group"),
        ({"label_from": "abc"}, "without parentheses"),
        ({"group_from": 3}, "`group_from` must be text"),
        ({"columns": {"colour": "x"}}, "`columns` must"),
        ({"columns": {"label": ""}}, "`columns` must"),
        ({"columns": "label=x"}, "`columns` must be a mapping"),
        ({"label_names": "ab"}, "`label_names` must be a list of names"),
        ({"label_names": ["a", "a "]}, "`label_names` must be different names"),
        ({"label_names": 3}, "`label_names` must be a list of names"),
        ({"pixel_shape": "28"}, "`pixel_shape` must be HEIGHTxWIDTH"),
        ({"pixel_shape": "28x28x4"}, "`pixel_shape` must be HEIGHTxWIDTH"),
        ({"pixel_shape": "0x28"}, "`pixel_shape` must be HEIGHTxWIDTH"),
        ({"root": ""}, "`root` must be a folder"),
        ({"test_data": ""}, "`test_data` must be a folder or a file"),
        ({"validation_data": 1}, "`validation_data` must be a folder or a file"),
        ({"test_data": "t.csv", "test": 0.1}, "`test` and `test_data` cannot be combined"),
    ],
)
def test_invalid_data_settings_are_errors(settings, message):
    assert any(message in fault for fault in faults(**settings))


@given(name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_any_folder_name_comes_back(tmp_path_factory, name):
    file = tmp_path_factory.getbasetemp() / "any-name.toml"
    TrainSettings(name).write(file)
    assert TrainSettings.from_toml(file).data == name


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_names_that_are_no_unicode_come_back(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xff")
    TrainSettings(name).write(tmp_path / "s.toml")
    assert os.fsencode(TrainSettings.from_toml(tmp_path / "s.toml").data) == b"caf\xe9 \xff"


def test_given_settings_override_the_file(tmp_path):
    TrainSettings("photos", seed=1, head="linear").write(tmp_path / "s.toml")
    settings = TrainSettings.from_toml(tmp_path / "s.toml", seed=2)
    assert (settings.seed, settings.head, settings.data) == (2, "linear", "photos")


def test_unknown_names_get_the_nearest_known_name(tmp_path):
    (tmp_path / "s.toml").write_text('data = "photos"\nsede = 1\nhue = "red"\n')
    with pytest.raises(SettingsError) as caught:
        TrainSettings.from_toml(tmp_path / "s.toml")
    first, second = str(caught.value).split("\n")
    assert "s.toml" in first and "Unknown setting 'sede'. Did you mean 'seed'?" in first
    assert "'hue'" in second and "class_weight" in second


def test_a_file_without_data(tmp_path):
    (tmp_path / "s.toml").write_text("seed = 1\n")
    with pytest.raises(SettingsError, match="data must name a folder"):
        TrainSettings.from_toml(tmp_path / "s.toml")
    assert TrainSettings.from_toml(tmp_path / "s.toml", data="photos").seed == 1


@pytest.mark.parametrize(
    "content",
    [
        b"data = ",
        b"\xff\xfe = 1",
        b"data = 1\ndata = 2\n",
        b"x = " + b"[" * 100_000,
        b"data = 'a'\nseed = " + b"9" * 10_000,
        b'data = "a"\nseed = "1"\n',
        b"[data]\nx = 1\n",
        b"data = 'a'\nsize = {a = 1}\n",
        b"data = 'a'\nvalidation = nan\n",
        b"data = 'a'\nvalidation = inf\n",
        b"data = 'a'\nmodel = []\n",
        b"data = 'a'\nhead = []\n",
        b"data = 'a'\nresize = {}\n",
        b"data = 'a'\nclass_weight = [1]\n",
        b"# " + b"x" * 2**20 + b"\ndata = 'a'\n",
    ],
)
def test_hostile_files(tmp_path, content):
    (tmp_path / "s.toml").write_bytes(content)
    with pytest.raises(SettingsError):
        TrainSettings.from_toml(tmp_path / "s.toml")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        TrainSettings.from_toml(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match="readable file"):
        TrainSettings.from_toml(tmp_path)
