"""Export a bundle: convert it, compare the result with it, and write the proof."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.digest import file_digest
from kindsight.errors import KindsightError, ParityError, UsageError
from kindsight.export.images import ExportImages, Reference, read_pixels, reference_of
from kindsight.export.kit.write import Kit, make_kit
from kindsight.export.proof import Proof, prove
from kindsight.export.target import (
    DESCRIPTION_FILE,
    FORMAT,
    Exporter,
    Outputs,
    converter_process,
    describe,
    version_of,
)
from kindsight.files import write_json, write_text
from kindsight.storage.files import check_local
from kindsight.training.common import Progress
from kindsight.uncertainty.prediction import Decisions

__all__ = [
    "LABELS_FILE",
    "PROOF_FILE",
    "Export",
    "check_export",
    "check_folders",
    "export_bundle",
    "raise_failures",
]

PROOF_FILE = "export.json"
LABELS_FILE = "labels.txt"

Status = Literal["proved", "accepted", "unproven", "failed"]


@dataclass(frozen=True)
class Export:
    """One target's result.

    Parameters
    ----------
    target : Exporter
    folder : pathlib.Path
        Folder of the files; for a failed export, where they would have been.
    size : int
        Size of the model's files in bytes.
    proof : Proof or None
        None if this machine cannot run the export, or the conversion failed.
    faults : tuple of str
        The bounds that are exceeded, or why the conversion failed.
    status : {"proved", "accepted", "unproven", "failed"}
        ``"accepted"``: it exceeds the bounds and was written nevertheless; ``"failed"``: nothing
        was written.
    """

    target: Exporter
    folder: Path
    size: int
    proof: Proof | None
    faults: tuple[str, ...]
    status: Status
    files: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "target": self.target.name,
            "folder": str(self.folder),
            "status": self.status,
            "faults": list(self.faults),
            "bytes": self.size,
            "files": list(self.files),
            "bounds": self.target.bounds.to_dict(),
            "proof": None if self.proof is None else self.proof.to_dict(),
        }


def check_folders(targets: Sequence[Exporter], out: str | os.PathLike[str]) -> None:
    """Raise UsageError if the folder of a target exists, or cannot be on a local disk."""
    check_local(out, "`out`")
    for target in targets:
        folder = Path(out, target.name)
        if os.path.lexists(folder):
            raise UsageError(f"{folder} exists. Choose another `out`, or delete that folder.")


def check_export(bundle: Bundle, targets: Sequence[Exporter], out: Path) -> None:
    """Raise errors that can be detected before the conversion starts.

    Raises
    ------
    UsageError
        If a target's folder exists.
    MissingExtraError
        If a target needs a package that is not installed.
    """
    check_folders(targets, out)
    for target in targets:
        target.check(bundle)


def export_bundle(
    bundle: Bundle,
    targets: Sequence[Exporter],
    out: str | os.PathLike[str],
    images: ExportImages,
    *,
    accept: bool = False,
    progress: Progress | None = None,
    on: str | None = None,
) -> Iterator[Export]:
    """Convert a bundle for each target and yield the results, one after the other.

    Parameters
    ----------
    bundle : Bundle
    targets : sequence of Exporter
        See :func:`.targets.find_targets`.
    out : path
        Parent folder; each target gets a subfolder with its name.
    images : ExportImages
        The images on which the exports are compared.
    accept : bool
        Whether an export that exceeds its bounds is written nevertheless.
    progress : callable, optional
        Called with (stage, done, total).
    on : str, optional
        Where the images are read and the classifier's predictions are computed, as for
        :class:`kindsight.Predictor`; exports are run on this machine.

    Raises
    ------
    UsageError
        If a target's folder exists, or no image can be read.
    MissingExtraError
        If a target needs a package that is not installed.
    """
    folder = Path(out)
    check_export(bundle, targets, folder)
    return _export_each(bundle, targets, folder, images, accept, progress or (lambda *_: None), on)


def raise_failures(exports: Sequence[Export]) -> None:
    """Raise ParityError if an export failed; the message gives the faults of each."""
    if failed := [each for each in exports if each.status == "failed"]:
        texts = (f"{each.target.name}: {' '.join(each.faults)}" for each in failed)
        raise ParityError(" ".join(texts))


def _export_each(
    bundle: Bundle,
    targets: Sequence[Exporter],
    out: Path,
    images: ExportImages,
    accept: bool,
    progress: Progress,
    on: str | None,
) -> Iterator[Export]:
    reference = reference_of(bundle, images, progress, on)
    decisions, kit = Decisions.load(bundle), make_kit(bundle)
    for target in targets:
        progress(f"Exporting to {target.name}", 0, 0)
        try:
            with _new_folder(out / target.name) as temporary:
                export = _export(bundle, target, temporary, reference, decisions, kit, accept)
        except KindsightError as error:
            yield Export(target, out / target.name, 0, None, (str(error),), "failed")
            continue
        yield export


def _export(
    bundle: Bundle,
    target: Exporter,
    folder: _NewFolder,
    reference: Reference,
    decisions: Decisions,
    kit: Kit,
    accept: bool,
) -> Export:
    def calibration() -> Any:
        return read_pixels(reference.images.calibration, bundle)

    files = target.convert(bundle, folder.path, calibration if target.needs_calibration else None)
    size = sum(path.stat().st_size for path in files)
    write_json(folder.path / DESCRIPTION_FILE, describe(bundle))
    write_text(folder.path / LABELS_FILE, "".join(f"{name}\n" for name in bundle.classes))
    proof, outputs = _proof(target, folder.path, reference, decisions, kit)
    faults = () if proof is None else tuple(proof.faults(target.bounds))
    status: Status = "unproven" if proof is None else "proved"
    if faults:
        status = "accepted" if accept else "failed"
    names = tuple(path.relative_to(folder.path).as_posix() for path in files)
    export = Export(target, folder.target, size, proof, faults, status, names)
    if status != "failed":
        kit.write(folder.path, target, outputs)
        _write_proof(bundle, export, folder.path, files)
        folder.keep()
    return export


def _proof(
    target: Exporter, folder: Path, reference: Reference, decisions: Decisions, kit: Kit
) -> tuple[Proof | None, Outputs | None]:
    """Return the proof of an export, and its outputs for the kit; None if it cannot be run."""
    try:
        model = target.open(folder)
        if model is None:
            return None, None
        with closing(model):
            proof = prove(model, reference, decisions)
            outputs = model.predict(kit.pixels)
        proof = replace(proof, cold_start=cold_start(target, folder, reference.pixels[:1]))
        return proof, outputs
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        # Any error that a runtime raises for a file that it cannot run.
        text = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
        raise KindsightError(f"The converted network cannot be run: {text}") from error


def cold_start(target: Exporter, folder: Path, pixels: NDArray[np.uint8]) -> float:
    """Return the seconds from the start of a process to its first prediction.

    The files have been read before, so that the system has them in memory.
    """
    started = time.perf_counter()
    if target.own_process:
        model = target.open(folder)
        assert model is not None
        with closing(model):
            model.predict(pixels)
            return time.perf_counter() - started
    with converter_process() as process:
        process.run_job(
            job="first", target=target.name, folder=str(folder), size=list(pixels.shape[1:3])
        )
        return time.perf_counter() - started


def _write_proof(bundle: Bundle, export: Export, folder: Path, files: Sequence[Path]) -> None:
    content: dict[str, Any] = {"format": FORMAT, **export.to_dict()}
    del content["folder"]
    content["versions"] = {**version_of("kindsight"), **export.target.runtime()}
    content["bundle"] = file_digest(bundle.tflite)
    content["files"] = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size, "digest": file_digest(path),
        }
        for path in files
    }  # fmt: skip
    write_json(folder / PROOF_FILE, content)


class _NewFolder:
    """A temporary folder that is renamed to its target if :meth:`keep` was called."""

    def __init__(self, target: Path, path: Path) -> None:
        self.target, self.path = target, path
        self.kept = False

    def keep(self) -> None:
        """Rename the folder when the block ends."""
        self.kept = True


@contextmanager
def _new_folder(target: Path) -> Iterator[_NewFolder]:
    """Yield a temporary folder beside `target`; it is renamed to it if kept, else deleted."""
    missing = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent)
    folder = _NewFolder(target, Path(temporary))
    try:
        yield folder
        if folder.kept:
            folder.path.chmod(0o777 & ~_umask())
            if target.exists():  # made by another process meanwhile
                raise UsageError(f"{target} exists. Choose another `out`, or delete the folder.")
            folder.path.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
