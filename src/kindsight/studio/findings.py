"""The findings of the newest check, with their images and remedies."""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kindsight.checks import all_checks
from kindsight.checks.apply import CHECK_THIS, COLUMNS, EXCLUDE, LEAKAGE, RELABEL
from kindsight.dataset.loaders.values import EXCLUDED
from kindsight.encoding import unescape_name
from kindsight.errors import DatasetError
from kindsight.files import read_json
from kindsight.report.format import amount
from kindsight.studio.shapes import (
    Change,
    FindingAction,
    Findings,
    FindingShape,
    GroupOfFindings,
)
from kindsight.studio.state.project import Project

__all__ = ["CHECKS_FOLDER", "FindingsOfProject"]

CHECKS_FOLDER = "checks"

MAX_BYTES = 512 * 2**20
SHOWN = 200
"""Maximum number of findings of a check that are listed one by one."""

_DUPLICATES = ("KS301", "KS302", "KS303", "KS304", "KS305", "KS401", "KS402", *LEAKAGE)
"""Checks that find images with the same content, of which one is enough."""


@dataclass(frozen=True)
class _Corrections:
    """Corrections of images by their ids."""

    labels: dict[int, str | None]
    excluded: dict[int, bool]
    groups: dict[int, str | None]

    @property
    def total(self) -> int:
        """The number of corrected images."""
        return len({*self.labels, *self.excluded, *self.groups})

    @property
    def title(self) -> str:
        """Title of the action: ``Exclude 3 images, relabel 2 images``."""
        alone = len(self.groups.keys() - self.labels.keys())
        parts = [
            f"exclude {amount(len(self.excluded), 'image')}" * bool(self.excluded),
            f"relabel {amount(len(self.labels), 'image')}" * bool(self.labels),
            f"group {amount(alone, 'similar image')}" * bool(alone),
        ]
        text = ", ".join(filter(None, parts))
        return text[:1].upper() + text[1:]


class FindingsOfProject:
    """The findings of a project's newest check, updated by the changes since.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._checks = {check.code: check for check in all_checks()}
        self._facts: dict[str, Any] | None = None
        self._content: dict[str, Any] = {}
        self._corrected: list[dict[str, str]] = []
        """Changed rows of the corrected table."""
        self._shape: tuple[int, Findings] | None = None
        self._flags: dict[int, list[str]] = {}
        self._flags_revision = -1

    def load(self, facts: Mapping[str, Any] | None) -> None:
        """Load the findings of a check.

        - `facts`: ``folder``, ``time``, ``full``, ``revision``, ``table`` of a finished check; None
          if there is none.
        """
        self._facts, self._content, self._corrected = None, {}, []
        self._flags_revision, self._shape = -1, None
        if facts is None:
            return
        try:
            path = self._project.folder / str(facts["folder"]) / "findings.json"
            content = read_json(path, MAX_BYTES)
            table = str(facts["table"])
            corrected = _rows(self._project.folder / table, posixpath.dirname(table))
            found = [part for part in content["checks"] if part["findings"]]
            for part in found:
                _require_valid(part, self._checks)
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            return
        self._facts, self._content, self._corrected = dict(facts), content, corrected

    @property
    def checked(self) -> bool:
        """Whether there is a finished check."""
        return self._facts is not None

    def flags(self) -> dict[int, list[str]]:
        """Return the codes of the open findings of each image with findings, by id."""
        with self._project.lock:
            if self._flags_revision != self._project.revision:
                self._flags, ids = {}, self._ids()
                for part in self._parts():
                    for finding in self._open_findings(part, ids):
                        for image in finding:
                            codes = self._flags.setdefault(image, [])
                            if part["code"] not in codes:
                                codes.append(part["code"])
                self._flags_revision = self._project.revision
            return self._flags

    def shape(self) -> Findings:
        """Return the findings for the page."""
        revision = self._project.revision
        if self._shape is None or self._shape[0] != revision:
            self._shape = revision, self._make_shape()
        return self._shape[1]

    def _make_shape(self) -> Findings:
        with self._project.lock:
            ids = self._ids()
            groups = [self._group(part, ids) for part in self._parts()]
            found = self._corrections()
        rank = {"error": 0, "warning": 1, "note": 2}
        groups.sort(key=lambda group: (rank[group["severity"]], group["code"]))
        counts = dict.fromkeys(rank, 0)
        for group in groups:
            counts[group["severity"]] += group["open"]
        facts = self._facts or {}
        actions: list[FindingAction] = []
        if found.total:
            actions.append(_action(found.title, "/api/findings/apply", {}))
        passed = sum(part["state"] == "passed" for part in self._content.get("checks", ()))
        return {
            "checked": facts.get("time"), "revision": int(facts.get("revision", 0)),
            "full": bool(facts.get("full")), "images": int(self._content.get("images", 0)),
            "counts": counts, "groups": groups, "passed": passed, "actions": actions,
            "report": "/api/reports/check" if self._facts else None,
        }  # fmt: skip

    def report(self) -> Path | None:
        """Return the file of the command's report."""
        if self._facts is None:
            return None
        return self._project.folder / str(self._facts["folder"]) / "report.html"

    def apply(self) -> Change:
        """Apply all corrections of the check's corrected table, as one change."""
        with self._project.lock:
            found = self._corrections()
            if not found.total:
                raise DatasetError("The newest check has nothing to correct.")
            command = "kindsight check dataset.csv --apply corrected.csv"
            return self._project.correct(
                found.labels, found.excluded, found.groups, found.title, command
            )

    def _corrections(self) -> _Corrections:
        """Return the changes that the check's corrected table would make in the project now."""
        found, columns = _Corrections({}, {}, {}), self._project.images
        ids = self._ids()
        for row in self._corrected:
            image = ids.get(row["path"])
            if image is None or columns.excluded[image]:
                continue
            if row["split"] == EXCLUDED:
                found.excluded[image] = True
                continue
            label = columns.classes.get(int(columns.label[image]))
            # An image that was relabelled since the check is left unchanged.
            if row["previous_label"] == label and row["label"]:
                found.labels[image] = row["label"]
            if row["group"] and row["group"] != columns.group[image]:
                found.groups[image] = row["group"]
        return found

    def _parts(self) -> list[dict[str, Any]]:
        return [part for part in self._content.get("checks", ()) if part["findings"]]

    def _ids(self) -> dict[str, int]:
        images = self._project.images
        return {images.path[row]: row for row in self._project.present().tolist()}

    def _open_findings(self, part: Mapping[str, Any], ids: Mapping[str, int]) -> list[list[int]]:
        found = []
        for finding in part["findings"]:
            images = _images_of(finding, ids)
            if images and self._is_open(part["code"], finding, images):
                found.append(images)
        return found

    def _is_open(self, code: str, finding: Mapping[str, Any], images: list[int]) -> bool:
        """Return whether a finding still holds: its images are in use, with their labels."""
        columns = self._project.images
        used = [image for image in images if not columns.excluded[image]]
        if len(images) > 1 and code in _DUPLICATES:
            return len(used) > 1 and not self._agree(code, used)
        if finding.get("suggestion") is not None and len(images) == 1:
            label = columns.classes.get(int(columns.label[images[0]]))
            return bool(used) and label != finding["suggestion"]
        return bool(used)

    def _agree(self, code: str, images: list[int]) -> bool:
        """Return whether a conflict of labels has been resolved."""
        columns = self._project.images
        return code in ("KS401", "KS402") and len(set(columns.label[images].tolist())) == 1

    def _group(self, part: Mapping[str, Any], ids: Mapping[str, int]) -> GroupOfFindings:
        code = part["code"]
        check = self._checks[code]
        findings = [
            self._finding(code, number, finding, ids)
            for number, finding in enumerate(part["findings"])
        ]
        unsolved = [finding for finding in findings if finding["open"]]
        return {
            "code": code, "title": check.title, "severity": part["findings"][0]["severity"],
            "description": check.description, "advice": check.advice, "count": len(findings),
            "open": len(unsolved), "actions": _joint_actions(code, unsolved),
            "findings": [*unsolved, *(f for f in findings if not f["open"])][:SHOWN],
        }  # fmt: skip

    def _finding(
        self, code: str, number: int, finding: Mapping[str, Any], ids: Mapping[str, int]
    ) -> FindingShape:
        images = _images_of(finding, ids)
        is_about_images = bool(finding["rows"])
        still = self._is_open(code, finding, images) if images else not is_about_images
        severity: Literal["error", "warning", "note"] = finding["severity"]
        return {
            "id": f"{code}-{number}", "severity": severity, "message": finding["message"],
            "images": images, "names": [] if is_about_images else list(finding["paths"]),
            "suggestion": finding["suggestion"], "confidence": finding.get("confidence"),
            "open": still,
            "actions": self._actions(code, finding, images) if still else [],
        }  # fmt: skip

    def _actions(
        self, code: str, finding: Mapping[str, Any], images: list[int]
    ) -> list[FindingAction]:
        columns = self._project.images
        used = [image for image in images if not columns.excluded[image]]
        suggestion = finding["suggestion"]
        actions: list[FindingAction] = []
        if suggestion is not None and used and (code in RELABEL or code.startswith("KS4")):
            actions.append(_label(f"Label {suggestion!r}", used, suggestion))
        if code in _DUPLICATES and len(used) > 1:
            actions.append(_exclude("Keep the first, exclude the others", used[1:]))
        elif used:
            several = f"these {len(used):,} images" if len(used) > 1 else "this image"
            actions.append(_exclude(f"Exclude {several}", used))
        if code == "KS113" and suggestion is not None:
            names = [name for name in finding["paths"] if name in columns.classes.values()]
            body = {"merge": [name for name in names if name != suggestion], "to": suggestion}
            if body["merge"]:
                actions = [_action(f"Merge into {suggestion!r}", "/api/classes", body)]
        return actions


def _joint_actions(code: str, findings: list[FindingShape]) -> list[FindingAction]:
    """Return the actions for all open findings of a check at once."""
    if len(findings) < 2:
        return []
    images = sorted({image for finding in findings for image in finding["images"]})
    if code in EXCLUDE and images:
        return [_exclude(f"Exclude all {len(images):,} images", images)]
    if code in _DUPLICATES:
        kept, others = set[int](), set[int]()
        for finding in findings:
            group = [image for image in finding["images"] if image not in others]
            kept.update(group[:1])
            others.update(image for image in group[1:] if image not in kept)
        if others:
            text = f"Keep one of each, exclude {len(others):,} images"
            return [_exclude(text, sorted(others))]
    return []


def _exclude(title: str, ids: list[int]) -> FindingAction:
    return _action(title, "/api/exclude", {"ids": ids, "excluded": True})


def _label(title: str, ids: list[int], label: str) -> FindingAction:
    return _action(title, "/api/label", {"ids": ids, "label": label})


def _action(title: str, path: str, body: dict[str, Any]) -> FindingAction:
    return {"title": title, "method": "POST", "path": path, "body": body}


def _images_of(finding: Mapping[str, Any], ids: Mapping[str, int]) -> list[int]:
    """Return the ids of a finding's images that are in the project."""
    if not finding["rows"]:
        return []
    paths = (unescape_name(path) for path in finding["paths"])
    return [ids[path] for path in paths if path in ids]


def _require_valid(part: Mapping[str, Any], checks: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError if a check does not have the command's format."""
    if part["code"] not in checks:
        raise KeyError(part["code"])
    for finding in part["findings"]:
        names = [*finding["paths"], finding["message"]]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a name that is not a text")
        if finding["severity"] not in ("error", "warning", "note"):
            raise ValueError(finding["severity"])
        if not isinstance(finding["rows"], list):
            raise TypeError("rows")
        if not isinstance(finding["suggestion"], (str, type(None))):
            raise TypeError("suggestion")


def _rows(path: Path, folder: str) -> list[dict[str, str]]:
    """Return the changed rows of a corrected table, without those that need a decision.

    - `folder`: the table's folder, relative to the project's; paths in the result are relative to
      the project's.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES)
    rows = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""))
    # Paths are relative to the table's folder.
    changed = [row for row in rows if row["reason"] and not row["reason"].startswith(CHECK_THIS)]
    for row in changed:
        if not all(isinstance(row[name], str) for name in COLUMNS):
            raise ValueError("a row with too few cells")
        row["path"] = posixpath.normpath(posixpath.join(folder, unescape_name(row["path"])))
    return changed
