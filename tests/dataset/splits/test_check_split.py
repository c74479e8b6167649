"""check_split finds impossible splits from labels, groups and paths alone."""

import pytest

from kindsight.dataset import ImageDataset, SplitSettings, check_split
from kindsight.errors import DatasetError, SettingsError


def dataset_of(labels, groups=(), **columns) -> ImageDataset:
    """Make a dataset whose files do not exist: they must not be read."""
    paths = tuple(f"{label}/{i}.jpg" for i, label in enumerate(labels))
    return ImageDataset(path=paths, label=tuple(labels), group=tuple(groups), **columns)


def test_possible_splits_pass():
    dataset = dataset_of("aabbcc")
    check_split(dataset, SplitSettings())
    check_split(dataset, SplitSettings(validation=3))
    check_split(dataset, SplitSettings(fold="1/2"))
    check_split(dataset, SplitSettings(by="date"))
    check_split(dataset_of("ab", split=("train", "validation")), SplitSettings())
    check_split(dataset_of("ab"), SplitSettings(validation=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"Class 'c' has 1 group \(4 images\); a validation split needs at least 2 groups"),
        ({"test": 0.2}, "a validation and a test split need at least 3 groups in each class"),
        ({"validation": 0, "test": 0.2}, "a test split needs at least 2 groups.* Use `test=0`"),
        ({"fold": "1/3"}, "3 folds need at least 3 groups in each class. Make the groups smaller"),
    ],
)
def test_too_few_groups(settings, message):
    dataset = dataset_of("aaabbbcccc", [*"123456", *"pppp"])
    with pytest.raises(DatasetError, match=message):
        check_split(dataset, SplitSettings(**settings))


def test_fewer_folds_are_recommended_where_there_are_fewer():
    dataset = dataset_of("aaabbb", [None] * 6)
    with pytest.raises(DatasetError, match="Use fewer folds, add images"):
        check_split(dataset, SplitSettings(fold="1/4"))
    check_split(dataset, SplitSettings(fold="1/3"))
    with pytest.raises(DatasetError, match=r"2 folds need .*\. Add images, or leave the class out"):
        check_split(dataset_of("aaab", [None] * 4), SplitSettings(fold="1/2"))


def test_the_whole_message():
    dataset = dataset_of(["cat"] * 12 + ["dog"] * 3, ["p"] * 12 + ["q", "r", None])
    with pytest.raises(DatasetError) as error:
        check_split(dataset, SplitSettings())
    assert str(error.value) == (
        "Class 'cat' has 1 group (12 images); a validation split needs at least 2 groups in each "
        "class. Use `validation=0`, make the groups smaller (another `group_from` or "
        '`columns={"group": "NAME"}`, or no `group_near_duplicates`), or leave the class out.'
    )


@pytest.mark.parametrize("settings", [{"by": "month"}, {"validation": 6}, {"validation": 1}])
def test_invalid_settings(settings):
    with pytest.raises(SettingsError):
        check_split(dataset_of("aabbcc"), SplitSettings(**settings))


def test_folds_of_data_with_a_validation_split():
    dataset = dataset_of("aabb", split=("train", "validation") * 2)
    with pytest.raises(DatasetError, match="already have a validation split"):
        check_split(dataset, SplitSettings(fold="1/2"))


def test_split_file(tmp_path):
    path, dataset = tmp_path / "split.csv", dataset_of("aabb")
    settings = SplitSettings(file=str(path))
    path.write_text("path,split\nother.jpg,test\n")
    with pytest.raises(DatasetError, match="contains none of the 4 images"):
        check_split(dataset, settings)
    # Matched by its digest, which is not known before the image is read.
    path.write_text("path,split,digest\nother.jpg,test,1234\n")
    check_split(dataset, settings)
    path.write_text("path,split\na/0.jpg,excluded\n")
    with pytest.raises(DatasetError, match="Class 'a' has 1 distinct image; a validation"):
        check_split(dataset, settings)
    path.write_text("path,split\na/0.jpg,validation\nb/2.jpg,validation\n")
    check_split(dataset, settings)
