"""Time two versions of kindsight in turns: training, training again, and prediction.

Example, with the working tree and an earlier commit::

    git worktree add --detach ../before COMMIT
    python benchmarks/versions.py --old ../before --new . --data cats-dogs/

Every figure is for whole processes, the versions in turns, each with a separate cache: a training
with an empty cache, another with a different seed, prediction of the folder, and of one image. The
tables show the medians of the wall time, and of the processor time of a process and its children,
which depends less on the machine's other work. The targets are for the wall time, on an idle
machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from folders import class_files
from output import Row, Section, Target, add_output_options, at_most, print_sections, warn_if_busy
from processes import CompletedRun, environment, kindsight, log, run

COLD, SECOND = "train, nothing cached", "train again, another seed"
FOLDER, ONE = "predict the folder", "predict one image"
MEASURED = {"cold": COLD, "second": SECOND, "folder": FOLDER, "one": ONE}
TARGETS = {COLD: 1.10, SECOND: 1.10, FOLDER: 1.05, ONE: 1.05}
"""Maximum time of the new version, as a fraction of the old one's; a twentieth is noise."""

# Seeds of the second trainings: no image of the first training's validation split need be in
# theirs.
FIRST_SEED = 1000


@dataclass
class Version:
    """A source tree with its cache and runs, and its processes so far by what they measure."""

    name: str
    tree: Path
    folder: Path
    done: dict[str, list[CompletedRun]] = field(default_factory=dict)

    def environment(self, cache: str = "cache-0") -> dict[str, str]:
        """Return the environment of its processes; compiled modules are not written to the tree."""
        source, compiled = str(self.tree / "src"), str(self.folder / "compiled")
        variables = environment(self.folder / cache, PYTHONPATH=source)
        return {**variables, "PYTHONPYCACHEPREFIX": compiled}

    def prepare(self) -> None:
        """Compile its modules, and check that its processes use it."""
        command = [sys.executable, "-m", "compileall", "-q", str(self.tree / "src" / "kindsight")]
        subprocess.run(command, env=self.environment(), check=True)
        code = "import kindsight; print(kindsight.__file__)"
        found = run([sys.executable, "-c", code], env=self.environment()).output.strip()
        if not Path(found).resolve().is_relative_to(self.tree.resolve()):
            raise SystemExit(f"{self.tree} must be a source tree of kindsight; got {found}.")

    def measure(self, what: str, *arguments: object, cache: str = "cache-0") -> None:
        """Run kindsight once."""
        done = run(kindsight(*arguments, "--quiet"), env=self.environment(cache))
        self.done.setdefault(what, []).append(done)
        log(f"{what}, {self.name}: {done.seconds:.2f} s, processor time {done.cpu:.2f} s")

    def train(self, what: str, data: Path, number: int, *options: object, cache: str) -> None:
        """Train once, into a new run folder."""
        target = self.folder / f"{what.split()[1].strip(',')}-{number}"
        self.measure(what, "train", data, "--run", target, *options, cache=cache)

    def predict(self, what: str, data: Path) -> None:
        """Predict once with the first training's run."""
        self.measure(what, "predict", self.folder / "nothing-0", data)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    for name in ("old", "new"):
        parser.add_argument(
            f"--{name}", type=Path, metavar="DIR", required=True, help=f"the {name} source tree"
        )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", required=True, help="folder of one folder per class"
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(MEASURED), default=list(MEASURED),
        help="what is measured; cold trains once in any case",
    )  # fmt: skip
    for name, number, what in (
        ("--cold-repeats", 3, "trainings with nothing cached, of each version"),
        ("--repeats", 5, "second trainings and predictions of the folder, of each version"),
        ("--one-repeats", 11, "predictions of one image, of each version"),
    ):
        parser.add_argument(
            name, type=int, default=number, metavar="N", help=f"{what}  (default: {number})"
        )
    add_output_options(parser)
    return parser.parse_args(arguments)


def in_turns(versions: Sequence[Version], repeats: int) -> Iterator[tuple[int, Version]]:
    """Yield each version `repeats` times with the number of the repeat; each begins half of them.

    Slow changes, such as those of the processor's temperature, therefore affect both equally.
    """
    for number in range(repeats):
        for version in versions if number % 2 == 0 else reversed(versions):
            yield number, version


def measure(options: argparse.Namespace, versions: Sequence[Version]) -> None:
    """Run all processes."""
    for version in versions:
        version.prepare()
    for number, version in in_turns(
        versions, options.cold_repeats if "cold" in options.only else 1
    ):
        version.train(COLD, options.data, number, cache=f"cache-{number}")
    repeats = options.repeats if "second" in options.only else 0
    for number, version in in_turns(versions, repeats):
        seed = FIRST_SEED + number
        version.train(SECOND, options.data, number, "--seed", seed, cache="cache-0")
    for _, version in in_turns(versions, options.repeats if "folder" in options.only else 0):
        version.predict(FOLDER, options.data)
    image = next(iter(class_files(options.data).values()))[0]
    for _, version in in_turns(versions, options.one_repeats if "one" in options.only else 0):
        version.predict(ONE, image)


def sections(old: Version, new: Version) -> list[Section]:
    """Return the tables of wall time and of processor time."""
    wall, cpu = Section("Time"), Section("Processor time (user and system, with children)")
    for what, limit in TARGETS.items():
        if what not in new.done:
            continue
        ours, theirs = new.done[what], old.done[what]
        target: Target = at_most(limit, of="ratio")
        wall.rows.append(Row(what, _seconds(ours), "s", old.name, _seconds(theirs), target=target))
        cpu.rows.append(Row(what, _cpu(ours), "s", old.name, _cpu(theirs)))
    return [wall, cpu]


def _seconds(runs: Sequence[CompletedRun]) -> list[float]:
    return [done.seconds for done in runs]


def _cpu(runs: Sequence[CompletedRun]) -> list[float]:
    return [done.cpu for done in runs]


@contextmanager
def _versions(options: argparse.Namespace) -> Iterator[list[Version]]:
    """Return both versions, with folders that are deleted in the end."""
    with tempfile.TemporaryDirectory(prefix="kindsight-bench-", ignore_cleanup_errors=True) as name:
        found = []
        for which in ("old", "new"):
            folder = Path(name, which)
            folder.mkdir()
            found.append(Version(which, getattr(options, which).resolve(), folder))
        yield found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the tables."""
    options = parse(arguments)
    options.data = options.data.resolve()
    warn_if_busy()
    with _versions(options) as versions:
        measure(options, versions)
        old, new = versions
        print_sections(sections(old, new), options)


if __name__ == "__main__":
    main()
