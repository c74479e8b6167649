"""What commands advise in the commonest situations, followed to the letter.

Each case makes a mistake on the command line, checks the advice, follows it, and expects the next
attempt to get on: a training gets as far as computing features, other commands end well.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from kindsight.errors import KindsightError
from tiny_bundle import COLOURS, write_image

COMPUTING = "the training begins to compute features"


class Case(NamedTuple):
    """A mistake, the advice, and what is done on it."""

    make: Callable[[], object]  # makes the files of the mistake
    arguments: str
    advice: Sequence[str]  # what the message must contain
    follow: Sequence[tuple[Callable[[], object] | None, str]]  # each way: change of files, command


def images(folder: str, names: Sequence[str], count: int = 4, first: int = 0) -> None:
    """Write different images of noise, `folder`/NAME/0.png and so on; NAME may end in _."""
    for name in names:
        for number in range(first, first + count):
            path = Path(folder, f"{name}{number}.png" if name.endswith("_") else name)
            path = path if name.endswith("_") else path / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([*map(ord, str(path))])
            Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)


def table(path: str, header: str, row: str, count: int = 4, folder: str = "photos") -> None:
    """Write a table with a row for each image of `folder`; {c} is the class, {i} the number."""
    images(folder, ("cat", "dog"), count)
    rows = [row.format(c=c, i=i) for c in ("cat", "dog") for i in range(count)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join([*([header] if header else []), *rows, ""]))


def photos(count: int = 4) -> None:
    images("photos", ("cat", "dog"), count)


def insert_line(path: str, line: str) -> None:
    Path(path).write_text(f"{line}\n{Path(path).read_text()}")


def of_one_class() -> None:
    table("t.csv", "path,label,animal", "photos/{c}/{i}.png,photo,{c}")


def of_two_ambiguous_folders() -> None:
    table("t.csv", "id,label", "{c}{i},{c}")
    for folder in ("one", "two"):
        images(folder, ("cat_", "dog_"))
        for path in Path(folder).iterdir():
            path.rename(path.with_name(path.name.replace("_", "")))


def splits(train: Sequence[str], test: Sequence[str]) -> None:
    images("photos/train", train)
    images("photos/test", test)


def finished_run() -> None:
    photos()
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/bundle.json").write_text("{}")


def archive() -> None:
    photos()
    shutil.make_archive("all", "zip", "photos")


def in_latin_1() -> None:
    photos()
    lines = ["path,label", *(f"photos/{c}/0.png,{c}\xe9" for c in ("cat", "dog"))]
    lines += [f"photos/{c}/1.png,{c}\xe9" for c in ("cat", "dog")]
    Path("t.csv").write_bytes("\n".join(lines).encode("cp1252"))


def grouped(column: str) -> None:
    table("t.csv", f"path,label,patient,{column}", "photos/{c}/{i}.png,{c},all of {c},{i}")


CASES = {
    "wrong folder": Case(
        photos, "train fotos", ["Images are read from a folder, a table"], [(None, "train photos")]
    ),
    "archive": Case(
        archive, "train all.zip", ["Unpack it, and give the folder, or a tar file."],
        [(lambda: shutil.unpack_archive("all.zip", "out"), "train out")],
    ),
    "single image": Case(
        photos, "train photos/cat/0.png", ["Give a folder with a folder of images for each class"],
        [(None, "train photos")],
    ),
    "single class": Case(
        lambda: images("photos", ("cat",)), "train photos",
        ["Put the images of each class into a folder named after the class."],
        [(photos, "train photos")],
    ),
    "classes in file names": Case(
        lambda: images("photos", ("cat_", "dog_")), "train photos",
        ["If the file names contain the labels, use --label-from."],
        [(None, "train photos --label-from (.+)_")],
    ),
    "single class by a pattern": Case(
        lambda: images("photos", ("cat_", "dog_")), "train photos --label-from (png)",
        ["Use another --label-from, or add images of other classes."],
        [(None, "train photos --label-from (.+)_")],
    ),
    "single class in a column": Case(
        of_one_class, "train t.csv", ["Name another column of labels, --column label=NAME,"],
        [(None, "train t.csv --column label=animal")],
    ),
    "one image a class": Case(
        lambda: photos(1), "train photos", ["Use --validation 0, add images,"],
        [(None, "train photos --validation 0"), (photos, "train photos")],
    ),
    "too few groups": Case(
        lambda: grouped("visit"), "train t.csv",
        ["Use --validation 0, make the groups smaller (another --group-from or --column "
         "group=NAME,"],
        [
            (None, "train t.csv --validation 0"), (None, "train t.csv --column group=visit"),
            (None, "train t.csv --group-from (.+)[.]png"),
        ],
    ),
    "groups by another pattern": Case(
        lambda: images("photos", ("cat", "dog")), "train photos --group-from (.)/",
        ["another --group-from"], [(None, "train photos --group-from (.+)[.]png")],
    ),
    "table without header": Case(
        lambda: table("t.csv", "", "photos/{c}/{i}.png,{c}"), "train t.csv",
        ["Insert a line such as 'path,label' before it."],
        [(lambda: insert_line("t.csv", "path,label"), "train t.csv")],
    ),
    "first image of a table named as a column": Case(
        lambda: table("t.csv", "", "{c},photos/{c}/{i}.png"),
        "train t.csv --column path=photos/cat/0.png --column label=cat",
        ["Insert a line such as 'label,path' before it."],
        [(lambda: insert_line("t.csv", "label,path"), "train t.csv")],
    ),
    "path column not found": Case(
        lambda: table("t.csv", "where,label", "photos/{c}/{i}.png,{c}"), "train t.csv",
        ["Name it: --column path=NAME."], [(None, "train t.csv --column path=where")],
    ),
    "column misspelled": Case(
        lambda: table("t.csv", "where,label", "photos/{c}/{i}.png,{c}"),
        "train t.csv --column path=were", ["Did you mean 'where'?"],
        [(None, "train t.csv --column path=where")],
    ),
    "missing images": Case(
        lambda: table("tables/t.csv", "path,label", "photos/{c}/{i}.png,{c}"),
        "train tables/t.csv", ["another folder, name it: --root FOLDER"],
        [(None, "train tables/t.csv --root .")],
    ),
    "images missing in the given folder": Case(
        lambda: table("tables/t.csv", "path,label", "photos/{c}/{i}.png,{c}"),
        "train tables/t.csv --root tables", ["name it: --root FOLDER"],
        [(None, "train tables/t.csv --root .")],
    ),
    "ambiguous images": Case(
        of_two_ambiguous_folders, "train t.csv", ["Give their folder: --root FOLDER"],
        [(None, "train t.csv --root one")],
    ),
    "encoding": Case(
        in_latin_1, "train t.csv", ["Give its encoding, such as --encoding cp1252,"],
        [(None, "train t.csv --encoding cp1252")],
    ),
    "unknown model": Case(
        photos, "train photos --model efficientnet-lite", ["Did you mean 'efficientnet-lite0'?"],
        [(None, "train photos --model efficientnet-lite0")],
    ),
    "unknown network": Case(
        photos, "train photos --model smal-cnn", ["Did you mean 'small-cnn'?"],
        [(None, "train photos --model small-cnn")],
    ),
    "existing run": Case(
        finished_run, "train photos --run mine",
        ["Choose another --run, or omit it to use the next number."],
        [(None, "train photos --run other"), (None, "train photos")],
    ),
    "wrong size": Case(
        photos, "train photos --size 5", ["pixels from 32 to 1024"],
        [(None, "train photos --size 32"), (None, "train photos --size 1024")],
    ),
    "size for convolutions": Case(
        photos, "train photos --size 20 --model small-cnn",
        ["must be at least 22 pixels", "Use a larger --size or fewer --filters (at most 2)."],
        [
            (None, "train photos --size 22 --model small-cnn"),
            (None, "train photos --size 20 --model small-cnn --filters 16,32"),
        ],
    ),
    "option of another trainer": Case(
        photos, "train photos --filters 8",
        ["only to a network from scratch (small-cnn)", "Leave it out, or choose another model."],
        [(None, "train photos"), (None, "train photos --filters 8 --model small-cnn")],
    ),
    "fold impossible": Case(
        photos, "train photos --fold 1/8", ["Use fewer folds, add images,"],
        [(None, "train photos --fold 1/4"), (lambda: photos(8), "train photos --fold 1/8")],
    ),
    "folds of data with a validation split": Case(
        lambda: images("photos", ("train/cat", "train/dog", "val/cat", "val/dog")),
        "train photos --fold 1/2", ["Leave out --fold"], [(None, "train photos")],
    ),
    "no training images": Case(
        lambda: table("t.csv", "path,label,split", "photos/{c}/{i}.png,{c},val"), "train t.csv",
        ["images of this split in the table", "or leave the splits out for a random split."],
        [
            (lambda: table("t.csv", "path,label", "photos/{c}/{i}.png,{c}"), "train t.csv"),
            (lambda: table("t.csv", "path,label,split", "photos/{c}/{i}.png,{c},train"),
             "train t.csv"),
        ],
    ),
    "classes differ between folders": Case(
        lambda: splits(("cat", "dog"), ("cat", "Dog")), "train photos",
        ["it has 'dog', spelled differently", "rename these folders or move them out"],
        [
            (lambda: Path("photos/test/Dog").rename("photos/test/dog"), "train photos"),
            (lambda: shutil.rmtree("photos/test"), "train photos"),
        ],
    ),
    "class without training images": Case(
        lambda: splits(("cat", "dog"), ("cat", "owl")), "train photos",
        ["no images of 'owl'. Add some, or"],
        [
            (lambda: images("photos/train", ("owl",), 4), "train photos"),
            (lambda: shutil.rmtree("photos/test/owl"), "train photos"),
        ],
    ),
    "validation out of range": Case(
        photos, "train photos --validation 1.5",
        ["a fraction from 0 to below 1, or a number of images from 2"],
        [(None, "train photos --validation 0.25"), (None, "train photos --validation 2")],
    ),
    "epochs out of range": Case(
        photos, "train photos --model small-cnn --epochs 0", ["a whole number from 1 to 100,000"],
        [(None, "train photos --model small-cnn --epochs 1")],
    ),
    "split file without its columns": Case(
        lambda: table("s.csv", "file,role", "{c}/{i}.png,train"), "train photos --split s.csv",
        ["needs the columns path and split; it lacks split", "Rename its columns."],
        [(lambda: Path("s.csv").write_text(Path("s.csv").read_text().replace("role", "split")),
          "train photos --split s.csv")],
    ),
    "option of tables": Case(
        photos, "train photos --root .", ["Leave it out."], [(None, "train photos")]
    ),
    "split twice": Case(
        lambda: (splits(("cat", "dog"), ("cat", "dog")), images("more", ("cat", "dog"))),
        "train photos --test-data more", ["Leave one of them out."],
        [(None, "train photos"), (lambda: shutil.rmtree("photos/test"),
                                  "train photos --test-data more")],
    ),
}  # fmt: skip


@pytest.fixture
def attempt(run, tmp_path, monkeypatch):
    """Return a function that runs a command in a folder of its own: its exit code and message."""

    def stop(*_, **__):
        raise KindsightError(COMPUTING)

    monkeypatch.setattr("kindsight.runs.train.prepare", stop)
    monkeypatch.chdir(tmp_path)

    def call(line: str) -> tuple[int, str]:
        result = run(*line.split())
        return result.exit_code, result.stderr.replace("\nkindsight: ", " ")

    return call


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_following_the_advice_gets_a_training_on(attempt, case, tmp_path, monkeypatch):
    for number, (change, line) in enumerate(case.follow):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        case.make()
        code, message = attempt(case.arguments)
        assert code == 2 and COMPUTING not in message
        for advice in case.advice:
            assert advice in message
        if change is not None:
            change()
        code, message = attempt(line)
        assert (code, message) == (1, f"kindsight: {COMPUTING}\n")


@pytest.fixture
def coloured(tmp_path, monkeypatch) -> None:
    """Two blue, green and red images each in photos/, of which one is in a test split."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for name, colour in COLOURS.items():
            write_image(Path("photos", split, name, "0.png"), colour)


@pytest.mark.parametrize(
    ("line", "advice", "cures"),
    [
        ("evaluate {tiny} photos --split validation", "Use --split all or omit it.",
         ["evaluate {tiny} photos --split all", "evaluate {tiny} photos"]),
        ("predict {tiny} photos/test --out old.csv",
         "Choose another --out, or overwrite it with --force.",
         ["predict {tiny} photos/test --out new.csv",
          "predict {tiny} photos/test --out old.csv --force"]),
        ("predict {tiny} photos/test --out new.txt", "must end in .csv, .xlsx or .parquet",
         ["predict {tiny} photos/test --out new.csv"]),
        ("predict {tiny} photos/test --json --format csv", "Leave one of them out.",
         ["predict {tiny} photos/test --json", "predict {tiny} photos/test --format csv"]),
        ("predict photos photos/test", "Give the folder of a run or another bundle.",
         ["predict {tiny} photos/test"]),
        ("evaluate {tiny} numbers.csv", "--label-names names numbers in a table",
         ["evaluate {tiny} numbers.csv --label-names blue,green,red"]),
        ("evaluate {tiny} others", "or rename the classes, such as with --label-map",
         ["evaluate {tiny} photos"]),
        ("check photos --out full", "Omit --out to get a numbered folder.", ["check photos"]),
        ("check photos --out full", "--out must be a new or empty folder",
         ["check photos --out empty"]),
    ],
)  # fmt: skip
def test_following_the_advice_of_other_commands(run, tiny, coloured, line, advice, cures):
    Path("old.csv").write_text("old")
    Path("full").mkdir()
    Path("full/file").write_text("old")
    rows = [f"photos/test/{name}/0.png,{k}" for k, name in enumerate(COLOURS)]
    Path("numbers.csv").write_text("\n".join(["path,label", *rows]))
    images("others", ("cat", "dog"))
    result = run(*line.format(tiny=tiny).split())
    assert result.exit_code in (1, 2) and advice in result.stderr
    for cure in cures:
        result = run(*cure.format(tiny=tiny).split())
        # The check finds that the images are alike, and so ends with 1.
        done = "report.html" in result.stdout if "check" in line else result.exit_code == 0
        assert done, result.stderr


def test_a_damaged_bundle_works_once_it_is_restored(run, tiny, coloured):
    from kindsight import Predictor
    from kindsight.errors import BundleError

    shutil.copytree(tiny, "mine")
    Path("mine/model.tflite").unlink()
    result = run("predict", "mine", "photos/test")
    assert result.exit_code == 1 and "Restore it, or train again." in result.stderr
    with pytest.raises(BundleError, match="Restore it"):
        Predictor("mine")
    shutil.copy(Path(tiny, "model.tflite"), "mine")
    assert run("predict", "mine", "photos/test").exit_code == 0


def test_an_extra_that_a_message_names_installs_what_is_missing(run, tiny, coloured, monkeypatch):
    from importlib.metadata import requires

    monkeypatch.setattr("kindsight.cli.terminal.prediction_files.find_spec", lambda name: None)
    for ending, package in (("xlsx", "xlsxwriter"), ("parquet", "pyarrow")):
        result = run("predict", tiny, "photos/test", "--out", f"new.{ending}")
        assert result.exit_code == 2 and f"pip install 'kindsight[{ending}]'" in result.stderr
        installed = [text for text in requires("kindsight") or () if f"extra == '{ending}'" in
                     text.replace('"', "'")]  # fmt: skip
        assert any(text.lower().startswith(package) for text in installed)
