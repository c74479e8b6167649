"""What the parts share in one run: the options, and things that are made once and used often."""

from __future__ import annotations

import itertools
import shutil
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from folders import class_files, first_of_each, lay_out, name_list
from processes import environment, kindsight, run, say

__all__ = ["Options", "Workshop"]

MAKE_BACKBONE = (
    "from kindsight.training.frozen.settings import FrozenTrainer; FrozenTrainer().backbone()"
)
MAKE_BARE_KERAS = """
import sys
from kindsight.models.efficientnet_lite import build_efficientnet_lite
from kindsight.models.weights import load_state
name = "efficientnet-lite0"
build_efficientnet_lite(name, weights=load_state(name), classes=None).save(sys.argv[1])
"""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Parameters
    ----------
    cats_dogs, sign_digits : pathlib.Path or None
        Folders of class folders.
    rivals_python : pathlib.Path or None
        Of the rivals' environment.
    repeats, rival_repeats, predict_repeats : int
        How often each process is run.
    limit : int or None
        Use about this many images of each data set: a trial.
    """

    cats_dogs: Path | None = None
    sign_digits: Path | None = None
    rivals_python: Path | None = None
    repeats: int = 3
    rival_repeats: int = 1
    predict_repeats: int = 7
    limit: int | None = None


@dataclass
class Workshop:
    """A temporary folder, and what is made in it when first needed.

    Parameters
    ----------
    options : Options
    folder : pathlib.Path
        Empty; deleted by whoever made it.
    """

    options: Options
    folder: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def new_folder(self, name: str) -> Path:
        """Make a folder that nobody has used."""
        path = self.folder / f"{name}-{next(self._numbers)}"
        path.mkdir()
        return path

    @cached_property
    def backbone(self) -> tuple[Path, float]:
        """A cache that holds the built backbone and nothing else; the seconds that took.

        The seconds are of a whole process that does nothing but this. A first training pays
        less: the process with Keras is started by every training.
        """
        cache = self.new_folder("cache-backbone")
        done = run([sys.executable, "-c", MAKE_BACKBONE], env=environment(cache))
        say(f"the backbone was made in {done.seconds:.1f} s")
        return cache, done.seconds

    @cached_property
    def backbone_tflite(self) -> Path:
        """The backbone's LiteRT file, the network that a training runs images through."""
        return next((self.backbone[0] / "backbones").glob("*.tflite"))

    @cached_property
    def bare_keras(self) -> Path:
        """The backbone without any head, as the Keras recipe takes it."""
        path = self.folder / "lite0.keras"
        run([sys.executable, "-c", MAKE_BARE_KERAS, str(path)])
        return path

    def cold_cache(self) -> Path:
        """Make a cache in which the backbone's files are and no image is."""
        cache = self.new_folder("cache")
        built = self.backbone[0] / "backbones"
        shutil.copytree(built, cache / "backbones", ignore=shutil.ignore_patterns("*.lock"))
        return cache

    @cached_property
    def cats_dogs(self) -> Path:
        """The data set of two classes, or a part of it."""
        return self._data(self.options.cats_dogs, "cats-dogs")

    @cached_property
    def sign_digits(self) -> Path:
        """The data set of ten classes, or a part of it."""
        return self._data(self.options.sign_digits, "sign-digits")

    def _data(self, given: Path | None, name: str) -> Path:
        if given is None:
            raise SystemExit(f"This needs the images: --{name} FOLDER.")
        if self.options.limit is None:
            return given.resolve()
        chosen = first_of_each(class_files(given), self.options.limit)
        return lay_out(chosen, self.new_folder("data") / name)

    @cached_property
    def trained(self) -> Path:
        """A finished run on cats-dogs."""
        runs = self.new_folder("runs")
        command = kindsight("train", self.cats_dogs, "--runs", runs, "--run", "one", "--quiet")
        run(command, env=environment(self.cold_cache()))
        return runs / "one"

    def names(self, count: int | None = None) -> Path:
        """Write a list of the images of cats-dogs, repeated until there are `count`."""
        classes = class_files(self.cats_dogs)
        images = sum(map(len, classes.values()))
        return name_list(classes, count or images, self.new_folder("names") / "names.txt")

    def count(self) -> int:
        """Return how many images cats-dogs has."""
        return sum(map(len, class_files(self.cats_dogs).values()))
