"""Options, data and files that the sections of ``main_job.py`` share, created when first needed."""

from __future__ import annotations

import itertools
import shutil
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from folders import class_files, first_of_each, lay_out, name_list
from processes import environment, kindsight, log, run

__all__ = ["Fixtures", "Options"]

BUILD_BACKBONE = (
    "from kindsight.training.frozen.settings import FrozenTrainer; FrozenTrainer().backbone()"
)
SAVE_KERAS_BACKBONE = """
import sys
from kindsight.models.backbones.efficientnet_lite import build_efficientnet_lite
from kindsight.models.backbones.weights import load_state
name = "efficientnet-lite0"
build_efficientnet_lite(name, weights=load_state(name), classes=None).save(sys.argv[1])
"""


@dataclass(frozen=True)
class Options:
    """Options of the command line; see ``main_job.py --help``."""

    cats_dogs: Path | None = None
    sign_digits: Path | None = None
    rivals_python: Path | None = None
    repeats: int = 3
    rival_repeats: int = 1
    predict_repeats: int = 7
    limit: int | None = None


@dataclass
class Fixtures:
    """A temporary folder and the files created in it; whoever made the folder deletes it."""

    options: Options
    folder: Path
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def new_folder(self, name: str) -> Path:
        """Create an empty folder."""
        path = self.folder / f"{name}-{next(self._numbers)}"
        path.mkdir()
        return path

    @cached_property
    def backbone(self) -> tuple[Path, float]:
        """A cache folder with the built backbone only, and the seconds the build took.

        The seconds include the start of a process with Keras, which a training starts anyway.
        """
        cache = self.new_folder("cache-backbone")
        done = run([sys.executable, "-c", BUILD_BACKBONE], env=environment(cache))
        log(f"the backbone was built in {done.seconds:.1f} s")
        return cache, done.seconds

    @cached_property
    def backbone_tflite(self) -> Path:
        """The backbone's LiteRT file."""
        return next((self.backbone[0] / "backbones").glob("*.tflite"))

    @cached_property
    def keras_backbone(self) -> Path:
        """The backbone without a head as a ``.keras`` file, for the Keras recipe."""
        path = self.folder / "lite0.keras"
        run([sys.executable, "-c", SAVE_KERAS_BACKBONE, str(path)])
        return path

    def cold_cache(self) -> Path:
        """Create a cache folder with the backbone and without features."""
        cache = self.new_folder("cache")
        built = self.backbone[0] / "backbones"
        shutil.copytree(built, cache / "backbones", ignore=shutil.ignore_patterns("*.lock"))
        return cache

    @cached_property
    def cats_dogs(self) -> Path:
        """The dataset with two classes, limited to ``--limit`` images."""
        return self._data(self.options.cats_dogs, "cats-dogs")

    @cached_property
    def sign_digits(self) -> Path:
        """The dataset with ten classes, limited to ``--limit`` images."""
        return self._data(self.options.sign_digits, "sign-digits")

    def _data(self, data: Path | None, name: str) -> Path:
        if data is None:
            raise SystemExit(f"This section needs images: add --{name} DIR.")
        if self.options.limit is None:
            return data.resolve()
        files = first_of_each(class_files(data), self.options.limit)
        return lay_out(files, self.new_folder("data") / name)

    @cached_property
    def trained(self) -> Path:
        """The run folder of a training on cats-dogs."""
        runs = self.new_folder("runs")
        command = kindsight("train", self.cats_dogs, "--runs", runs, "--run", "one", "--quiet")
        run(command, env=environment(self.cold_cache()))
        return runs / "one"

    def names(self, count: int | None = None) -> Path:
        """Write a list of `count` files of cats-dogs (all by default), repeating them if needed."""
        classes = class_files(self.cats_dogs)
        return name_list(classes, count or self.count(), self.new_folder("names") / "names.txt")

    def count(self) -> int:
        """Return how many images cats-dogs has."""
        return sum(map(len, class_files(self.cats_dogs).values()))
