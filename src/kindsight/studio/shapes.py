"""The JSON of the studio's API: requests and responses.

Every path begins with ``/api``. Images are named by ids: integers from 0 that stay the same as long
as the project exists. The response to every change is a :class:`Change`. The response to an error
is ``{"detail": sentence}``: 400 (a wrong request), 403 (not from the studio's page), 404 (no such
image, job or run), 409 (not now), 413 (too large), 500.

The token of the page (``<meta name="kindsight-token">``) is the header ``X-Kindsight-Token`` of
every request. For requests that a browser sends without custom headers (images, thumbnails, heat
maps, reports, ``/api/events``), the cookie that comes with the page is enough.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import NotRequired, TypedDict

__all__ = [
    "Added",
    "Change",
    "CheckRequest",
    "ClassRequest",
    "Event",
    "ExcludeRequest",
    "ExportRequest",
    "FindingAction",
    "FindingShape",
    "Findings",
    "GroupOfFindings",
    "ImageIds",
    "ImageRow",
    "ImageTable",
    "Images",
    "ImportRequest",
    "JobShape",
    "LabelRequest",
    "Mistake",
    "ProjectClass",
    "ProjectShape",
    "RunShape",
    "RunSummary",
    "Source",
    "TrainRequest",
    "UploadProblem",
]  # fmt: skip

MOST_IDS = 1_000_000
"""Maximum number of images that one request may name."""

LONGEST_NAME = 100
"""Maximum number of characters of the name of a class."""

Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MOST_IDS)]
ClassName = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ClassRequest(_Request):
    """``POST /api/classes``: one of four changes.

    ``{"add": "cat"}``; ``{"rename": "cat", "to": "cats"}``; ``{"remove": "cat"}``, whose images
    become unlabelled; ``{"merge": ["cat", "kitten"], "to": "cat"}``.
    """

    add: ClassName | None = None
    rename: ClassName | None = None
    remove: ClassName | None = None
    merge: Annotated[list[ClassName], Field(min_length=1, max_length=1000)] | None = None
    to: ClassName | None = None


class LabelRequest(_Request):
    """``POST /api/label``: a class, which may be new; null for no label."""

    ids: Ids
    label: ClassName | None


class ExcludeRequest(_Request):
    """``POST /api/exclude``."""

    ids: Ids
    excluded: bool


class ImportRequest(_Request):
    """``POST /api/import``: a folder or table on this machine, which is used in place."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]


class CheckRequest(_Request):
    """``POST /api/check``: `full` for the checks that need features, too."""

    full: bool = False


class TrainRequest(_Request):
    """``POST /api/train``: null for the default of ``kindsight train``.

    ``POST /api/train/preview`` returns ``{"command": ...}`` and starts nothing.

    `options` are further options of a training by name, as in a finding's remedies.
    """

    model: Annotated[str, Field(max_length=100)] | None = None
    budget: Annotated[str, Field(max_length=20)] | None = None
    options: Annotated[dict[str, Any], Field(max_length=100)] = {}


class ExportRequest(_Request):
    """``POST /api/export``: formats as for ``kindsight export --to``."""

    run: Annotated[str, Field(min_length=1, max_length=255)]
    to: Annotated[list[Annotated[str, Field(max_length=40)]], Field(min_length=1, max_length=20)]


class Filters(BaseModel):
    """The query of ``GET /api/images`` and ``GET /api/images/ids``."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[list[str], Field(max_length=1000)] = []
    """Classes; an empty text for unlabelled images."""
    split: Annotated[str, Field(max_length=20)] = ""
    """train, validation, test or none."""
    finding: Annotated[str, Field(max_length=20)] = ""
    """A code such as KS203; any."""
    query: Annotated[str, Field(max_length=200)] = ""
    """Part of the name or path; case does not matter."""
    excluded: bool | None = None
    sort: Annotated[str, Field(max_length=20)] = "id"
    """id, name, label, size or flags."""
    reverse: bool = False
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=0, le=1000)] = 200


class Change(TypedDict):
    """The response to a change: `POST` of classes, label, exclude, undo, redo, import, apply."""

    revision: int
    """Number of changes so far, including undone ones; it only increases."""
    changed: int
    """Number of images that changed."""
    title: str
    """Title of the change, for the undo button: ``Label 12 images 'cat'``."""
    command: str
    """A command that does the same; a comment (``# ...``) if there is none."""
    undo: str | None
    """Title of the change that ``POST /api/undo`` undoes next."""
    redo: str | None


class ProjectClass(TypedDict):
    """A class, in the order of the page."""

    name: str
    images: int
    """Number of images with this label that are not excluded."""
    excluded: int


class Totals(TypedDict):
    """Numbers of images."""

    images: int
    """All images, including excluded ones."""
    labelled: int
    unlabelled: int
    excluded: int
    """`labelled` and `unlabelled` do not count these."""
    splits: dict[str, int]
    """Images with a given split: train, validation, test; without excluded ones."""


class ProjectShape(Totals):
    """``GET /api/project``."""

    name: str
    folder: str
    data: str | None
    """The folder or table whose images are used in place."""
    version: str
    revision: int
    classes: list[ProjectClass]
    notes: list[str]
    undo: str | None
    redo: str | None
    checked: bool
    """Whether there are findings."""
    findings: int
    """Open findings of the newest check; 0 without one."""
    runs: int
    models: list[str]
    """Names for ``--model``."""
    formats: list[dict[str, str]]
    """Formats of an export: ``{"name": "web", "needs": ""}``, or a command that installs it."""
    limits: dict[str, int]
    """``files``, ``file_bytes``, ``request_bytes``, ``pixels`` of one upload."""
    command: str


class Source(TypedDict):
    """``GET /api/sources``: a folder or table whose images are used in place.

    ``POST /api/import`` with its path adds the new images.
    """

    path: str
    name: str
    new: int
    """Number of its images that are not in the project."""


class ImageRow(TypedDict):
    """One image in a list."""

    id: int
    name: str
    """The file's own name, or its path in the dataset."""
    path: str
    """Path as in dataset.csv."""
    label: str | None
    excluded: bool
    split: str | None
    flags: list[str]
    """Codes of its open findings."""
    version: str
    """``/api/thumbnails/{id}?v={version}`` may be cached for ever."""
    size: int
    """Bytes."""
    added: bool
    """Whether the studio has a copy in ``images/``."""


class Images(TypedDict):
    """``GET /api/images`` with :class:`Filters`: a page of the images that pass them."""

    total: int
    images: list[ImageRow]
    revision: int


class ImageIds(TypedDict):
    """``GET /api/images/ids``, with :class:`Filters`: all ids, in order."""

    total: int
    ids: list[int]
    revision: int


class ImageTable(TypedDict):
    """``GET /api/images/columns``: all images in the order of their ids, one column each."""

    revision: int
    classes: list[str]
    ids: list[int]
    names: list[str]
    """Path in the dataset, or the name of the file that was sent."""
    labels: list[int]
    """Index in `classes`; -1 for no label."""
    excluded: list[int]
    """1 or 0."""
    splits: list[int]
    """0 for none, 1 train, 2 validation, 3 test."""
    versions: list[str]
    flags: dict[str, list[str]]
    """Codes of the open findings by the image's id, as text."""


class UploadProblem(TypedDict):
    """A file that was not added."""

    name: str
    reason: str
    id: NotRequired[int]
    """For a duplicate, the image with the same content."""


class Added(Change):
    """``POST /api/images``: multipart files named ``files``; fields ``label``, ``source``.

    The name of a file may have folders (``cats/1.jpg``). With `label`, all get it, and it becomes a
    class if it is new. With ``label_from=folder``, the label is the name of the file's own
    folder. `source` is a word for the journal: drop, folder, webcam. Uploads with the same text
    `batch` are undone at once.
    """

    added: list[int]
    duplicates: list[UploadProblem]
    unreadable: list[UploadProblem]


class JobShape(TypedDict):
    """``GET /api/jobs``: newest first; the response to a ``POST`` that starts a job.

    ``DELETE /api/jobs/{id}`` stops one, ``POST /api/jobs/{id}/continue`` runs the same command
    again: it continues. ``GET /api/jobs/{id}`` has `log` and `epochs`, too.
    """

    id: int
    kind: Literal["check", "train", "export"]
    title: str
    command: str
    state: Literal["queued", "running", "stopping", "done", "failed", "stopped", "interrupted"]
    """stopped: by the user; interrupted: the process was killed or the machine stopped."""
    created: float
    """Seconds since 1970; also `started`, `ended`."""
    started: float | None
    ended: float | None
    stage: str
    """Title of the running stage: ``Computing features``."""
    done: int
    total: int
    """0 if unknown."""
    error: str
    """The command's error message, if it failed."""
    run: str | None
    """Name of the run that a training made or an export used."""
    result: Any
    """Output of the finished command with --json: a training's accuracy, an export's table;
    shortened for a check."""
    epochs: NotRequired[list[dict[str, Any]]]
    """Rows of the training's history: epoch, phase, loss, accuracy, val_loss, val_accuracy."""
    log: NotRequired[list[str]]
    """The last lines of the command."""


class FindingAction(TypedDict):
    """A remedy: a complete request."""

    title: str
    method: str
    path: str
    body: dict[str, Any]


class FindingShape(TypedDict):
    """A finding."""

    id: str
    severity: Literal["error", "warning", "note"]
    message: str
    images: list[int]
    """Ids; empty for a finding about files, folders or classes, whose names are in `names`."""
    names: list[str]
    suggestion: str | None
    confidence: float | None
    open: bool
    """False after its images were excluded or relabelled."""
    actions: list[FindingAction]


class GroupOfFindings(TypedDict):
    """The findings of one check."""

    code: str
    title: str
    severity: Literal["error", "warning", "note"]
    description: str
    advice: str
    count: int
    """All findings; `findings` has the first 200."""
    open: int
    actions: list[FindingAction]
    """For all findings of the check at once."""
    findings: list[FindingShape]


class Findings(TypedDict):
    """``GET /api/findings``; ``checked`` is null before the first check."""

    checked: float | None
    revision: int
    """Revision of the project when the check began."""
    full: bool
    images: int
    counts: dict[str, int]
    """Open findings per severity."""
    groups: list[GroupOfFindings]
    passed: int
    """Checks without findings."""
    actions: list[FindingAction]
    """All corrections that ``kindsight check --apply`` makes, at once."""
    report: str | None
    """URL of the command's report."""


class RunSummary(TypedDict):
    """``GET /api/runs``: newest first."""

    name: str
    finished: bool
    created: float
    model: str
    images: int
    classes: int
    split: str | None
    """The split of the accuracy."""
    accuracy: float | None
    interval: list[float] | None
    """95% confidence interval: low, high."""
    seconds: float | None
    error: str
    """Why the run cannot be shown."""


class Mistake(TypedDict):
    """An image whose prediction is not its label."""

    id: int | None
    path: str
    label: str
    prediction: str
    confidence: float
    probabilities: dict[str, float]
    """Probabilities of the five most probable classes."""


class RunShape(RunSummary):
    """``GET /api/runs/{run}``."""

    command: str
    labels: list[str]
    """The classes, in the order of `confusion`."""
    confusion: list[list[int]]
    """Rows: labels; columns: predictions."""
    per_class: list[dict[str, Any]]
    """name, images, precision, recall, interval (of the recall, 95%), f1."""
    correct: int
    total: int
    words: list[str]
    """The result in sentences."""
    mistakes: list[Mistake]
    """The most confident first; at most 500."""
    wrong: int
    """Number of all mistakes."""
    diagnosis: list[dict[str, Any]]
    """Findings: code, title, severity, message, evidence, commands; `trainings`: for each remedy
    that changes options, the body of a ``POST /api/train``."""
    epochs: list[dict[str, Any]]
    best_epoch: int | None
    uncertainty: dict[str, Any]
    """``unsure``, ``unknown``: thresholds or null; ``sets``: whether there are prediction sets."""
    report: str | None
    """URL of the run's report."""
    exports: list[dict[str, Any]]
    """As ``GET /api/exports``: run, format, folder, main (a file), files, bytes, status, faults,
    proof, command. ``GET /api/exports/{run}/{format}/{file}`` downloads a file."""


class Event(TypedDict):
    """``GET /api/events``: server-sent events; `Last-Event-ID` continues.

    Names: ``hello`` (data: project revision; reload all), ``project`` (a change: reload the project
    and lists), ``job`` (a :class:`JobShape`), ``epoch`` (``{"job": id, "epoch": row}``),
    ``findings``, ``runs`` (reload these), ``trouble`` (``{"detail": sentence}``: dataset.csv could
    not be written, as on a full disk; the journal has everything).
    """

    id: str
    event: str
    data: Any
