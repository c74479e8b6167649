"""The model card: complete, escaped, bounded."""

from __future__ import annotations

import dataclasses
import re

from test_report_page import everything, report, training_summary, trust

from html_page import HOSTILE
from kindsight.report.model_card import render_model_card


def test_it_has_every_section_and_the_metrics():
    data = everything()
    text = render_model_card(data)
    headings = re.findall(r"^## (.+)$", text, flags=re.M)
    assert headings == ["Intended use", "Data", "Metrics", "Uncertainty", "Limits", "Training"]
    found = data.results[0].evaluation
    low, high = (100 * end for end in found.accuracy_interval)
    assert f"| Accuracy | {100 * found.accuracy:.1f}% | {low:.1f}\N{EN DASH}{high:.1f}% |" in text
    assert "| kind 0 | 40 | 10 |" in text
    assert "| all | 120 | 30 |" in text
    assert "**photos** (KD101): photos" in text
    assert "$ kindsight train --settings 'runs/my photos-1/settings.toml'" in text


def test_tables_have_one_cell_for_each_column():
    for data in (everything(), report(12, 240), report(results=())):
        width = None
        for line in render_model_card(data).splitlines():
            if not line.startswith("|"):
                width = None
                continue
            count = len(re.findall(r"(?<!\\)\|", line))
            assert width in (None, count), line
            width = count


def test_names_have_no_meaning_in_markdown():
    name = f"a|b`c\n# d [e](javascript:f) {HOSTILE}"
    data = report(3, 60, names=[name, "b", "c"])
    data = dataclasses.replace(
        data,
        title=name,
        training=training_summary([name, "b"], source=name, details={name: name}, machine=name),
        notes=(name,),
        run_folder=name,
        **trust(data, name),
    )
    text = re.sub(r"^```.*?^```$", "", render_model_card(data), flags=re.M | re.S)
    text = re.sub(r"(?<!\\)`[^`]*`", "", text)
    assert not re.search(r"(?<!\\)[<\[|]", re.sub(r"^\|.*\|$", "", text, flags=re.M))
    assert "\n# d" not in text


def test_its_length_is_bounded():
    names = [f"{'n' * 60} {number}" for number in range(600)]
    data = report(600, 1200, names=names, notes=("n" * 5000,) * 500)
    assert len(render_model_card(data)) < 100_000
