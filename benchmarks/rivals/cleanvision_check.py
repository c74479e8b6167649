"""Check a folder of images with cleanvision: a rival of ``kindsight check``.

Runs all checks with cleanvision's default settings on all cores, as its documentation shows. Prints
one line of JSON: the paths of the images with each issue.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    # cleanvision prints progress; standard output is for the JSON alone.
    with contextlib.redirect_stdout(sys.stderr):
        from cleanvision import Imagelab

        lab = Imagelab(data_path=str(folder))
        lab.find_issues()
    issues = {
        column.removeprefix("is_").removesuffix("_issue"): sorted(
            os.path.relpath(path, folder) for path in lab.issues.index[lab.issues[column]]
        )
        for column in lab.issues.columns
        if column.startswith("is_")
    }
    print(json.dumps({"images": len(lab.issues), "issues": issues}))


if __name__ == "__main__":  # cleanvision's worker processes import this file
    main()
