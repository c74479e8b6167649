"""A small folder for each check, in which it finds something: what its page shows, and tests run.

Everything is drawn here (:mod:`.still_life`); ``make_check_examples.py`` makes the pages' images.
"""

from . import of_content, of_copies, of_files, of_names, of_sets  # each enters its examples
from .contract import EXAMPLES, Example

__all__ = ["EXAMPLES", "Example", "of_content", "of_copies", "of_files", "of_names", "of_sets"]
