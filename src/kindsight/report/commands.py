"""The commands that a report shows: to use a model, and to make it again."""

from __future__ import annotations

import shlex

from kindsight.report.data import ReportData

__all__ = ["reproduce"]


def reproduce(data: ReportData) -> list[tuple[str, str]]:
    """Return commands with a description of each: two for use, then those to reproduce the run."""
    if not data.run_folder:
        return []
    folder = shlex.quote(data.run_folder)
    settings = shlex.quote(f"{data.run_folder}/settings.toml")
    version = data.training.versions.get("kindsight", "")
    package = shlex.quote(f"kindsight[train]=={version}" if version else "kindsight[train]")
    return [
        ("Classify images", f"kindsight predict {folder} new/*.jpg"),
        ("Evaluate on labelled images", f"kindsight evaluate {folder} photos-test/"),
        ("Install the same version", f"pip install {package}"),
        ("Train again", f"kindsight train --settings {settings}"),
        ("Make this page again", f"kindsight report {folder}"),
    ]
