"""From what checks found to a page: one HTML file that needs nothing but itself."""

from __future__ import annotations

from dataclasses import replace

from kindsight.report.findings_data import FindingsData, FindingsSection
from kindsight.report.templating import clean, environment, is_small_image

__all__ = ["MAX_IMAGES", "render_findings"]

MAX_IMAGES = 500
"""Pictures shown on one page, at some 6 kB each."""


def render_findings(data: FindingsData) -> str:
    """Make the page of findings.

    Parameters
    ----------
    data : FindingsData
        Names, messages and labels in it may hold anything: they are escaped, shortened where they
        are very long, and freed of control characters.

    Returns
    -------
    str
        One HTML page that fetches nothing and runs no script, encodable as UTF-8.
    """
    page = (
        environment()
        .get_template("findings.html.j2")
        .render(
            data=data,
            sections=_with_sound_images(data.sections),
            total=sum(data.counts.values()),
            states=_states(data),
        )
    )
    return clean(page)


def _states(data: FindingsData) -> list[tuple[str, int]]:
    order = ("passed", "not applicable", "skipped", "silenced")
    found = [check.state for check in data.quiet]
    return [(state, found.count(state)) for state in order if state in found]


def _with_sound_images(sections: tuple[FindingsSection, ...]) -> list[FindingsSection]:
    """Leave out images that are none, and all beyond the limit."""
    left = MAX_IMAGES
    kept = []
    for section in sections:
        findings = []
        for finding in section.findings:
            pictures = []
            for picture in finding.pictures:
                sound = left > 0 and is_small_image(picture.image)
                left -= sound
                pictures.append(picture if sound else replace(picture, image=""))
            findings.append(replace(finding, pictures=tuple(pictures)))
        kept.append(replace(section, findings=tuple(findings)))
    return kept
