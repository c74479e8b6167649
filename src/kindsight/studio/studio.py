"""The studio: one object for a project with its jobs, findings, runs and events."""

from __future__ import annotations

import importlib.metadata
import shlex
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kindsight.dataset.labels import MISSING
from kindsight.diagnosis.commands import train_command
from kindsight.errors import DatasetError, KindsightError, UsageError
from kindsight.export.targets import TARGETS, find_targets
from kindsight.models.backbones.table import BACKBONES
from kindsight.options import OPTIONS
from kindsight.runs.settings import TrainSettings
from kindsight.server.models import LoadedModel, load_model
from kindsight.storage.files import check_local
from kindsight.studio.events import EventLog
from kindsight.studio.findings import CHECKS_FOLDER, FindingsOfProject
from kindsight.studio.jobs import ENDED, Job, Jobs
from kindsight.studio.runs import RUNS_FOLDER, count_runs, require_finished
from kindsight.studio.shapes import ProjectShape, TrainRequest
from kindsight.studio.state.adding import LIMITS, import_dataset
from kindsight.studio.state.journal import JOURNAL_FILE
from kindsight.studio.state.listing import class_counts
from kindsight.studio.state.project import Project
from kindsight.studio.state.table import TABLE_FILE, hidden_folder
from kindsight.studio.state.thumbnails import Thumbnails
from kindsight.training.option_rules import read_option

__all__ = ["Studio", "open_folder"]

WRITE_SECONDS = 0.5
"""Seconds from a change to the update of the table: several quick changes are written at once."""

LOADED_MODELS = 2
"""Maximum number of classifiers in memory for trying them."""


def open_folder(given: Path, data: str | None = None) -> tuple[Path, str | None]:
    """Return the project folder for the command's argument, and the data to start with.

    A project, a new folder or an empty one is the project folder itself. For a folder of images or
    a table, it is a folder beside it, such as ``photos-studio``, since the data are never changed.

    Raises
    ------
    UsageError
        If a file is not a table, or `data` is given with a folder of images.
    """
    check_local(given, "The folder of a project")
    if is_project(given):
        return given, data
    if not given.exists() or (given.is_dir() and not _has_files(given)):
        return given, data
    resolved = given.resolve()
    stem = resolved.stem if resolved.is_file() else resolved.name
    project = resolved.parent / f"{stem}-studio"
    if data is not None and is_project(project):
        return project, data
    if data is not None:
        raise UsageError(
            f"`data` needs a project or a new folder to put the project into; got {given}, which "
            "has other files."
        )
    return project, None if is_project(project) else str(given)


def is_project(folder: Path) -> bool:
    """Return whether a folder is a studio project, which may have no changes yet."""
    return (folder / JOURNAL_FILE).is_file() or (folder / ".studio").is_dir()


def _has_files(folder: Path) -> bool:
    return any(not path.name.startswith(".") for path in folder.iterdir())


class Studio:
    """A project with all data that the page shows.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the project; created if it does not exist.
    data : str, optional
        A folder or table whose images are added and used in place.
    thumbnails : Thumbnails, optional

    Raises
    ------
    UsageError
        If another studio has the project open, or the data cannot be used.
    """

    def __init__(
        self, folder: Path, data: str | None = None, thumbnails: Thumbnails | None = None
    ) -> None:
        self.folder = folder
        created = _make_folder(folder)
        hidden = hidden_folder(folder)
        self._lock = FileLock(hidden / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{folder} is open in another kindsight studio. Use its page, or stop that "
                "studio first."
            ) from None
        self.events = EventLog()
        self.thumbnails = thumbnails or Thumbnails()
        try:
            self.project = Project(folder, self._project_changed)
            if data is not None:
                lasting = not len(self.project.images)
                import_dataset(self.project, data, lasting=lasting)
                self.project.write()
        except BaseException:
            self._lock.release()
            if created:
                _remove_new(folder)
            raise
        self.findings = FindingsOfProject(self.project)
        self._closing = threading.Event()
        self._dirty = threading.Event()
        self._models: OrderedDict[str, tuple[float, LoadedModel]] = OrderedDict()
        self._models_lock = threading.Lock()
        self.jobs = Jobs(
            folder, hidden / "jobs", self.project.write, self._job_changed, self._job_ended
        )
        self.findings.load(self._newest_check())
        self._writer = threading.Thread(target=self._write, name="kindsight-table", daemon=True)

    def start(self) -> None:
        """Start to run jobs and to write the table."""
        self._writer.start()
        self.jobs.start()

    def close(self) -> None:
        """Stop the running job, write the table and let others open the project."""
        self.events.close()
        self._closing.set()
        self._dirty.set()
        self.jobs.close()
        if self._writer.is_alive():
            self._writer.join(10)
        self.project.write()
        self.thumbnails.close()
        self._lock.release()

    # Data for the page

    def describe(self) -> ProjectShape:
        """Return the project for the page."""
        project = self.project
        findings = self.findings.shape() if self.findings.checked else None
        with project.lock:
            classes, totals = class_counts(project.images)
            undo, redo = project.undo_titles()
            return {
                "name": self.folder.resolve().name, "folder": str(self.folder.resolve()),
                "data": project.data, "version": importlib.metadata.version("kindsight"),
                "revision": project.revision, **totals, "classes": classes,
                "notes": list(project.notes), "undo": undo, "redo": redo,
                "checked": findings is not None,
                "findings": 0 if findings is None else sum(findings["counts"].values()),
                "runs": count_runs(self.folder),
                "models": [*BACKBONES, "small-cnn"], "formats": _formats(),
                "limits": dict(LIMITS),
                "command": f"kindsight studio {shlex.quote(str(self.folder))}",
            }  # fmt: skip

    def ids(self) -> dict[str, int]:
        """Return the ids of the images by path."""
        with self.project.lock:
            images = self.project.images
            return {images.path[row]: row for row in self.project.present().tolist()}

    def model(self, name: str) -> LoadedModel:
        """Return the classifier of a run, loaded; BundleError if it is not finished."""
        folder = require_finished(self.folder, name)
        stamp = (folder / "bundle.json").stat().st_mtime
        with self._models_lock:
            known = self._models.get(name)
            if known is None or known[0] != stamp:
                known = stamp, load_model(folder, name, 1)
                self._models[name] = known
            self._models.move_to_end(name)
            while len(self._models) > LOADED_MODELS:
                self._models.popitem(last=False)
            return known[1]

    # Jobs

    def check(self, *, full: bool) -> Job:
        """Queue ``kindsight check``."""
        self._require_classes(1)
        number = self._next_check()
        arguments = [
            "check", TABLE_FILE, *(["--full"] if full else []), *self._data_options(),
            "--out", f"{CHECKS_FOLDER}/{number}", "--apply", f"{CHECKS_FOLDER}/{number}.csv",
        ]  # fmt: skip
        return self.jobs.submit("check", "Check the images" + ", thoroughly" * full, arguments)

    def train_arguments(self, request: TrainRequest) -> list[str]:
        """Return the arguments of a training; SettingsError for invalid options."""
        given = {"model": request.model, "budget": request.budget, **request.options}
        for name in ("data", "run", "runs"):
            if name in given:
                raise UsageError(f"`{name}` is the studio's own; leave it out.")
        values = {
            name: read_option(OPTIONS[name], value) if name in OPTIONS else value
            for name, value in given.items()
            if value is not None
        }
        if MISSING.intersection(self.project.images.classes.values()):
            values["keep_na_labels"] = True
        TrainSettings(data=TABLE_FILE, **values)
        return shlex.split(train_command({"data": TABLE_FILE}, values))[1:]

    def train(self, request: TrainRequest) -> Job:
        """Queue ``kindsight train``."""
        self._require_classes(2)
        arguments = self.train_arguments(request)
        title = "Train a classifier" + f" within {request.budget}" * bool(request.budget)
        return self.jobs.submit("train", title, arguments)

    def export(self, run: str, formats: list[str]) -> Job:
        """Queue ``kindsight export``."""
        require_finished(self.folder, run)
        names = [target.name for target in find_targets(formats)]
        for name in names:
            if (self.folder / RUNS_FOLDER / run / "export" / name).exists():
                raise DatasetError(f"{run} was already exported as {name}. Use that export.")
        arguments = ["export", f"{RUNS_FOLDER}/{run}", "--to", ",".join(names)]
        return self.jobs.submit("export", f"Export {run} as {', '.join(names)}", arguments, run)

    def _data_options(self) -> list[str]:
        names = self.project.images.classes.values()
        return ["--keep-na-labels"] if MISSING.intersection(names) else []

    def _require_classes(self, count: int) -> None:
        with self.project.lock:
            classes, _ = class_counts(self.project.images)
        used = [each for each in classes if each["images"]]
        if len(used) < count:
            raise DatasetError(
                "Label images of two or more classes first."
                if count > 1
                else "Label some images first."
            )

    def _next_check(self) -> int:
        parent = self.folder / CHECKS_FOLDER
        names = [path.stem for path in parent.iterdir()] if parent.is_dir() else []
        taken = [int(name) for name in names if name.isascii() and name.isdigit()]
        queued = [job.id for job in self.jobs.all()]
        return max([*taken, *queued, 0]) + 1

    # Called by others

    def _project_changed(self) -> None:
        self.events.send("project", {"revision": self.project.revision})
        if hasattr(self, "_dirty"):
            self._dirty.set()

    def _job_changed(self, job: Job, epochs: list[dict[str, Any]]) -> None:
        self.events.send("job", job.shape())
        for row in epochs:
            self.events.send("epoch", {"job": job.id, "epoch": row})
        if job.state in ENDED and job.facts["kind"] in ("train", "export"):
            self.events.send("runs", {})
        if job.state == "done" and job.facts["kind"] == "check":
            self.events.send("findings", {"revision": self.project.revision})

    def _job_ended(self, job: Job) -> dict[str, Any]:
        """Return the part of a command's result that the page shows."""
        result, kind = job.result, job.facts["kind"]
        if kind == "check":
            folder = str(result.get("folder", ""))
            table = (result.get("corrected") or {}).get("table")
            details = {
                "folder": folder, "table": table, "time": time.time(),
                "full": "--full" in job.arguments, "revision": job.facts["revision"],
                "counts": result.get("counts"), "images": result.get("images"),
            }  # fmt: skip
            self.findings.load(details)  # before the job is seen to be done
            return details
        if kind == "train":
            names = ("images", "classes", "skipped", "validation", "test", "seconds", "diverged")
            kept = {name: _short(result[name]) for name in names if name in result}
            return {**kept, "run": Path(str(result.get("run", ""))).name}
        return {"run": job.facts["run"], "exports": result.get("exports", [])}

    def _newest_check(self) -> dict[str, Any] | None:
        for job in self.jobs.all():
            details = job.facts["details"]
            if job.facts["kind"] == "check" and job.state == "done" and isinstance(details, dict):
                return details
        return None

    def _write(self) -> None:
        while not self._closing.is_set():
            self._dirty.wait()
            self._closing.wait(WRITE_SECONDS)
            self._dirty.clear()
            try:
                self.project.write()
            except (OSError, KindsightError) as error:
                self.events.send(
                    "trouble", {"detail": f"{TABLE_FILE} could not be written: {error}"}
                )


def _make_folder(folder: Path) -> bool:
    """Create the folder of a project; return whether it is new."""
    try:
        created = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"Could not create the project folder {folder} ({error.strerror}). Give a writable "
            "folder, and the images as `data`."
        ) from error
    return created


def _remove_new(folder: Path) -> None:
    """Delete the folder of a project that could not be started, with the studio's files."""
    for path in (*(folder / ".studio").glob("*"), folder / TABLE_FILE, folder / JOURNAL_FILE):
        path.unlink(missing_ok=True)
    for path in (folder / ".studio", folder):
        try:
            path.rmdir()
        except OSError:
            return


def _formats() -> list[dict[str, str]]:
    """Return the formats of an export, each with the command that installs it if it is missing."""
    found = []
    for name, target in TARGETS.items():
        needs = f"pip install 'kindsight[{target.extra}]'" if _is_missing(target.extra) else ""
        found.append({"name": name, "title": target.title, "needs": needs})
    return found


def _is_missing(extra: str | None) -> bool:
    from importlib.util import find_spec

    modules = {
        "quantize": ("ai_edge_quantizer",), "onnx": ("onnx", "onnxruntime", "tf2onnx"),
        "openvino": ("openvino",), "coreml": ("coremltools",), "train": ("tensorflow", "keras"),
    }  # fmt: skip
    return any(find_spec(module) is None for module in modules.get(extra or "", ()))


def _short(value: Any) -> Any:
    """Return an evaluation without its long fields."""
    if not isinstance(value, dict):
        return value
    kept = ("images", "accuracy", "accuracy_interval", "log_loss", "ece")
    return {name: value[name] for name in kept if name in value} or value
