"""Checks of content: whether there is something to see."""

from kindsight.catalog.checks.content.blank import BlankPictures
from kindsight.catalog.checks.content.blurred import BlurredPictures
from kindsight.catalog.checks.content.bright import BrightPictures
from kindsight.catalog.checks.content.coloured import ColouredAmongGrey
from kindsight.catalog.checks.content.contrast import LowContrast
from kindsight.catalog.checks.content.dark import DarkPictures
from kindsight.catalog.checks.content.grey import GreyAmongColoured
from kindsight.catalog.checks.content.tones import FewTones
from kindsight.catalog.checks.contract import Check

CHECKS: tuple[type[Check], ...] = (
    BlankPictures,
    BlurredPictures,
    DarkPictures,
    BrightPictures,
    LowContrast,
    GreyAmongColoured,
    ColouredAmongGrey,
    FewTones,
)
