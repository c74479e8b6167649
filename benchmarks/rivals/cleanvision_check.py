"""cleanvision on a folder of images: a rival of ``kindsight check``.

All its checks at their default settings, on all cores, as its own documentation has it. Prints one
line of JSON: the images of each issue, by name.
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
    # It prints progress and a summary; the last line of standard output is ours alone.
    with contextlib.redirect_stdout(sys.stderr):
        from cleanvision import Imagelab

        lab = Imagelab(data_path=str(folder))
        lab.find_issues()
    found = {
        column.removeprefix("is_").removesuffix("_issue"): sorted(
            os.path.relpath(path, folder) for path in lab.issues.index[lab.issues[column]]
        )
        for column in lab.issues.columns
        if column.startswith("is_")
    }
    print(json.dumps({"images": len(lab.issues), "issues": found}))


if __name__ == "__main__":  # it starts processes, which import this file again
    main()
