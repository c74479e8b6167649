"""A small folder for each check in which it finds something; shown on its page and tested.

All images are drawn (:mod:`.still_life`); ``make_check_examples.py`` draws the images of the pages.
"""

from . import of_content, of_copies, of_files, of_names, of_sets  # each registers its examples
from .contract import EXAMPLES, Example

__all__ = ["EXAMPLES", "Example", "of_content", "of_copies", "of_files", "of_names", "of_sets"]
