"""Checks of files: what is there, and whether it can be read."""

from kindsight.catalog.checks.contract import Check
from kindsight.catalog.checks.files.bombs import TooLargePictures
from kindsight.catalog.checks.files.empty import EmptyFiles
from kindsight.catalog.checks.files.frames import SeveralFrames
from kindsight.catalog.checks.files.masks import Masks
from kindsight.catalog.checks.files.misnamed import MisnamedPictures
from kindsight.catalog.checks.files.modes import UnusualPixels
from kindsight.catalog.checks.files.not_pictures import NotPictures
from kindsight.catalog.checks.files.others import OtherFiles
from kindsight.catalog.checks.files.same_classes import SameClasses
from kindsight.catalog.checks.files.same_names import SameNames
from kindsight.catalog.checks.files.shapes import ExtremeShapes
from kindsight.catalog.checks.files.sizes import UnusualSizes
from kindsight.catalog.checks.files.thumbnail_folders import ThumbnailFolders
from kindsight.catalog.checks.files.thumbnails import OtherThumbnails
from kindsight.catalog.checks.files.truncated import TruncatedPictures
from kindsight.catalog.checks.files.turned import TurnedPictures
from kindsight.catalog.checks.files.unread_formats import UnreadFormats
from kindsight.catalog.checks.files.unreadable import UnreadablePictures

CHECKS: tuple[type[Check], ...] = (
    UnreadablePictures,
    TruncatedPictures,
    EmptyFiles,
    NotPictures,
    TooLargePictures,
    MisnamedPictures,
    SeveralFrames,
    UnusualPixels,
    UnusualSizes,
    ExtremeShapes,
    TurnedPictures,
    SameNames,
    SameClasses,
    OtherFiles,
    Masks,
    OtherThumbnails,
    ThumbnailFolders,
    UnreadFormats,
)
