"""Datasets at addresses and in tar files are those of the same files in a local folder."""

import csv
import gzip
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kindsight import ImageDataset, Predictor
from kindsight.cache.folder import Cache
from kindsight.dataset.reading.process_files import process_files
from kindsight.digest import content_digest
from kindsight.errors import DatasetError, ImageError, MissingExtraError, StorageError
from kindsight.images import read_image
from kindsight.storage import access
from kindsight.storage.address import shown
from kindsight.storage.files import names_in, write_file
from storage_server import upload
from tiny_bundle import write_bundle


def rows(dataset: ImageDataset) -> list[tuple[str | None, str | None, str]]:
    """Return label, split and content digest of each image, sorted."""
    found = [
        (dataset.label[row], dataset.split[row], content_digest(dataset.load(row)))
        for row in range(len(dataset))
    ]
    return sorted(found, key=str)


def tar_files(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_table(folder: Path, path: Path, start: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([start + name, name.split("/")[0]] for name in tar_files(folder))


def test_the_same_images_from_everywhere(
    store: str, web: str, folder: Path, tmp_path: Path, write_tar
) -> None:
    expected = ImageDataset.open(folder)
    upload(folder, "s3://photos/set")
    upload(folder, "memory://one/set")
    upload(folder, (tmp_path / "web" / "set").as_uri())
    write_table(folder, tmp_path / "table.csv", "set/")
    write_file("s3://photos/table.csv", tmp_path / "table.csv")
    write_table(folder, tmp_path / "links.csv", f"{web}/set/")
    write_table(folder, tmp_path / "web" / "relative.csv", "set/")
    write_tar(tmp_path / "photos.tar", tar_files(folder))
    write_file("s3://photos/photos.tar", tmp_path / "photos.tar")
    addresses = [
        "s3://photos/set/", "s3://photos/table.csv", "s3://photos/photos.tar", "memory://one/set",
        "memory://one", str(tmp_path / "links.csv"), f"{web}/set/", f"{web}/relative.csv",
        str(tmp_path / "photos.tar"), folder.as_uri(),
    ]  # fmt: skip
    predictor = Predictor(write_bundle(tmp_path / "bundle"))
    logits = [one.logits.tolist() for one in predictor.predict(expected)]
    for address in addresses:
        dataset = ImageDataset.open(address)
        assert rows(dataset) == rows(expected), address
        assert [one.logits.tolist() for one in predictor.predict(dataset)] == logits, address


def test_python_reads_addresses(store: str, folder: Path, tmp_path: Path) -> None:
    upload(folder, "s3://photos/python")
    one = "s3://photos/python/red/0.png"
    assert (read_image(one) == read_image(folder / "red" / "0.png")).all()
    dataset = ImageDataset.from_files([one, "s3://photos/python/none.png"], ["red", "red"])
    assert dataset.size == ((folder / "red" / "0.png").stat().st_size, 0)
    with pytest.raises(ImageError, match="no such file"):
        dataset.load(1)
    found, missing = Predictor(write_bundle(tmp_path / "bundle")).predict(dataset.path)
    assert found.label == "red" and found.path == one
    assert missing.error is not None and missing.error.code == "missing"


class _Processor:
    """Counts the images that are processed."""

    def __init__(self) -> None:
        self.rows = {}

    def read(self, digest, data):
        return digest

    def failed(self, digest, error):
        return digest

    def known(self, digests):
        return {digest for digest in digests if digest in self.rows}

    def put(self, rows):
        self.rows.update(dict.fromkeys(rows))

    def problems(self, digests):
        return {}


def test_an_unchanged_file_is_read_once(
    store: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(folder, "s3://photos/again")
    read: list[str] = []
    original = access.read

    def counted(address: str, max_bytes: int) -> bytes:
        read.append(address)
        return original(address, max_bytes)

    monkeypatch.setattr(access, "read", counted)
    table = _Processor()

    def process() -> list[str | None]:
        dataset = ImageDataset.open("s3://photos/again")
        found = process_files(dataset, Cache(tmp_path / "c"), table, table, lambda _: table, 2)
        return found.digests

    first = process()
    assert len(read) == 8
    assert process() == first and len(read) == 8
    write_file("s3://photos/again/red/0.png", (folder / "blue" / "0.png").read_bytes())
    assert process() != first
    assert read[8:] == ["s3://photos/again/red/0.png"]


def test_shards_with_labels_beside_the_images(
    store: str, folder: Path, tmp_path: Path, write_tar
) -> None:
    images = list(tar_files(folder).values())
    facts = json.dumps({"label": "red", "split": "test", "group": "g1"}).encode()
    write_tar(tmp_path / "x-0.tar", {
        "a.png": images[0], "a.cls": b"blue\n", "a.seg.png": images[1],
        "b.png": images[4], "b.json": facts, "c.png": images[5], "._d.png": b"x", "e.npy": b"x",
    })  # fmt: skip
    write_file("s3://photos/shards/x-000.tar", tmp_path / "x-0.tar")
    write_tar(tmp_path / "x-1.tar", {"f.png": images[6], "f.cls": b"red", "f.txt": b"a caption"})
    write_file("s3://photos/shards/x-001.tar", tmp_path / "x-1.tar")
    dataset = ImageDataset.open("s3://photos/shards/x-{000..001}.tar")
    assert dataset.path == ("x-000.tar!a.png", "x-000.tar!b.png", "x-001.tar!f.png")
    assert dataset.label == ("blue", "red", "red")
    assert dataset.split == (None, "test", None)
    assert dataset.group == (None, "g1", None)
    assert dataset.ignored == {
        "further image of a sample": 1, "hidden file": 1, "image without a label": 1,
        "not an image (.npy)": 1,
    }  # fmt: skip
    assert dataset.load(2) == images[6]
    captions = ImageDataset.open(str(tmp_path / "x-1.tar"), columns={"label": "txt"}, min_classes=1)
    assert captions.label == ("a caption",)
    assert ImageDataset.open("s3://photos/shards", labelled=False).path[0] == "x-000.tar!a.png"
    with pytest.raises(DatasetError, match=r"no file s3://photos/shards/x-002\.tar"):
        ImageDataset.open("s3://photos/shards/x-{001..002}.tar")


def test_shards_may_be_splits_and_damaged(folder: Path, tmp_path: Path, write_tar) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in ("train-0", "train-1", "test-0"):
        write_tar(shards / f"{name}.tar", tar_files(folder))
    whole = (shards / "train-1.tar").read_bytes()
    (shards / "train-1.tar").write_bytes(whole[:1600])
    (shards / "train-2.tar").write_bytes(b"none" * 200)
    dataset = ImageDataset.open(shards)
    assert dataset.split_counts() == {"train": 9, "validation": 0, "test": 8}
    lost = {"rest of a damaged tar file": 1, "unreadable tar file": 1}
    assert dataset.ignored == {"truncated": 1, **lost}
    assert any("'train-1.tar' is truncated" in note for note in dataset.notes)
    assert any("unreadable tar files: 'train-2.tar'" in note for note in dataset.notes)
    unlabelled = tmp_path / "flat.tar"
    write_tar(unlabelled, {"1.png": b"x"})
    with pytest.raises(DatasetError, match="have no labels"):
        ImageDataset.open(unlabelled)
    by_name = ImageDataset.open(unlabelled, label_from=r"^(\d)", min_classes=1)
    assert by_name.label == ("1",)


def test_the_storage_as_a_whole(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="bucket of s3://none/x does not exist"):
        ImageDataset.open("s3://none/x")
    with pytest.raises(DatasetError, match="'s3://photos/none' does not exist"):
        ImageDataset.open("s3://photos/none")
    with pytest.raises(StorageError, match="no known kind of storage"):
        ImageDataset.open("foo://x")
    with pytest.raises(
        DatasetError, match=r"two slashes: 's3://photos/set'\. .* give an address as text"
    ):
        ImageDataset.open(Path("s3://photos/set"))
    monkeypatch.setenv("NO_PROXY", "*")
    (one,) = ImageDataset.from_files(["memory://none/1.jpg"]).path
    with pytest.raises(ImageError) as caught:
        read_image("http://user:secret@127.0.0.1:9/1.jpg?sign=secret")
    assert caught.value.code == "unreachable" and "sign=secret" not in caught.value.reason
    assert one == "memory://none/1.jpg"


def no_wait(seconds: float) -> None:
    raise AssertionError("it must not be tried again")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/table.csv", "http://localhost:9/x/"])
def test_a_refused_connection_is_not_tried_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access.time, "sleep", no_wait)
    monkeypatch.setenv("NO_PROXY", "*")
    reason = r":9 refused the connection\. Check the address and its port, and that the server is"
    with pytest.raises(StorageError, match=reason):
        ImageDataset.open(address)


def test_an_unknown_host_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access.time, "sleep", no_wait)
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    failing = access._attempt

    def fail() -> None:
        raise ConnectionError("failed") from unknown

    with pytest.raises(StorageError, match=r"is unknown\. Check the address, and the network"):
        failing(fail, "http://no-such-host.invalid/x.csv")
    busy = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    with pytest.raises(AssertionError, match="tried again"):
        failing(lambda: (_ for _ in ()).throw(busy), "http://host.invalid/x.csv")


def test_the_endpoint_of_a_store_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is not that of the address: the message names the variable to check."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")
    monkeypatch.delenv("FSSPEC_GS_ENDPOINT_URL", raising=False)
    refused = ConnectionRefusedError(111, "Connect call failed")
    translated = str(access._translated(refused, "s3://photos/x"))
    assert "refused the connection. Check AWS_ENDPOINT_URL, and that the server" in translated
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9 refused .* STORAGE_EMULATOR_HOST, and"):
        access._check_server(access._google_url(), "gs://photos/x")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # it may know more hosts
    access._check_server(access._google_url(), "gs://photos/x")


def test_other_file_systems_are_opened_for_their_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftplib.FTP.connect", lambda *_, **__: (_ for _ in ()).throw(refused))
    refused = ConnectionRefusedError(111, "Connection refused")
    # fsspec's class fails in its own finalizer if it was not connected.
    monkeypatch.setattr("fsspec.implementations.ftp.FTPFileSystem.__del__", lambda self: None)
    with pytest.raises(
        StorageError, match=r"host\.invalid refused the connection\. Check the addr"
    ) as caught:
        ImageDataset.open("ftp://user:secret@host.invalid/photos/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("https://user:secret@host/a?sign=secret", "https://host/a"),
        ("https://user:se@cret@host/a@b:c", "https://host/a@b:c"),
        ("ftp://user:se@cret@host/a@b?c", "ftp://host/a@b?c"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        ("s3://bucket/a:b@c", "s3://bucket/a:b@c"),
    ],
)
def test_no_password_is_printed(address: str, text: str) -> None:
    assert shown(address) == text


def test_the_case_of_a_scheme_does_not_matter(store: str, folder: Path) -> None:
    upload(folder, "s3://photos/case")
    expected = rows(ImageDataset.open("s3://photos/case/"))
    assert rows(ImageDataset.open("S3://photos/case/")) == expected
    assert read_image("S3://photos/case/red/0.png").shape == (8, 8, 3)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['s3fs'] = sys.modules['gcsfs'] = sys.modules['aiohttp'] = None\n"
        "from kindsight import ImageDataset\n"
        "from kindsight.errors import MissingExtraError\n"
        "for name in ('s3://a/b', 'gs://a/b', 'https://a/b'):\n"
        "    try:\n"
        "        ImageDataset.open(name)\n"
        "    except MissingExtraError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, third = done.stdout.splitlines()
    assert first.endswith("pip install 'kindsight[s3]'")
    assert second.endswith("pip install 'kindsight[remote]' gcsfs")
    assert third.endswith("pip install 'kindsight[remote]'")
    assert issubclass(MissingExtraError, ValueError)


def test_local_paths_import_nothing(folder: Path) -> None:
    code = (
        "import sys\n"
        "from kindsight import ImageDataset\n"
        f"ImageDataset.open({str(folder)!r}).load(0)\n"
        "print({'fsspec', 's3fs', 'aiohttp', 'pyarrow'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_odd_names_and_endless_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        async_impl = False

        def _strip_protocol(self, path: str) -> str:
            return path

        def ls(self, path: str, detail: bool) -> list[dict[str, object]]:
            folder = path.rstrip("/")
            names = ["..", "next", "a\x1b[31m.jpg", "b/c.jpg"]
            return [
                {
                    "name": f"{folder}/{n}",
                    "size": 1,
                    "type": "directory" if "j" not in n else "file",
                }
                for n in names
            ] + [{"name": "elsewhere/x.jpg", "size": 1, "type": "file"}]

    monkeypatch.setattr(access, "file_system", lambda address: Hostile())
    dataset = ImageDataset.from_folder("hostile://x", labelled=False)
    assert len(dataset) == 65 + 1  # a folder in 65 folders, and the limit of the depth
    assert dataset.path[0] == "a\x1b[31m.jpg"
    assert "unusable name" in dataset.ignored
    assert "\x1b" not in repr(dataset)


def test_a_file_is_written_whole(store: str, tmp_path: Path) -> None:
    for folder in ("s3://photos/out", "memory://out/a", tmp_path.as_uri() + "/out", str(tmp_path)):
        write_file(f"{folder}/part.parquet", b"first")
        (tmp_path / "local").write_bytes(b"second")
        write_file(f"{folder}/part.parquet", tmp_path / "local")
        assert [name for name in names_in(folder) if "part" in name] == ["part.parquet"]
    assert access.read("s3://photos/out/part.parquet", 100) == b"second"
    with pytest.raises(StorageError, match="files cannot be written to web servers"):
        write_file("https://example.invalid/x", b"")


def test_predict_takes_addresses(store: str, folder: Path, tmp_path: Path) -> None:
    upload(folder, "s3://photos/cli")
    bundle = write_bundle(tmp_path / "bundle")
    names = ["s3://photos/cli/", "s3://photos/cli/red/*.png", "s3://photos/cli/none.jpg"]
    done = subprocess.run(
        [sys.executable, "-m", "kindsight", "predict", str(bundle), *names, "--json"],
        capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["label"] for row in found] == ["blue"] * 4 + ["red"] * 8 + [None], done.stderr
    assert found[0]["path"] == "s3://photos/cli/blue/0.png"
    assert found[-1]["error"]["code"] == "missing"
    no_bundle = subprocess.run(
        [sys.executable, "-m", "kindsight", "predict", "s3://photos/run", "x.jpg"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "must be on a local disk; got s3://photos/run" in no_bundle.stderr


def test_predict_fails_for_tar_files_that_lost_images(
    folder: Path, tmp_path: Path, write_tar
) -> None:
    from typer.testing import CliRunner

    from kindsight.cli.app import app

    bundle, whole, cut = write_bundle(tmp_path / "bundle"), tmp_path / "a.tar", tmp_path / "b.tar"
    write_tar(whole, tar_files(folder))
    cut.write_bytes(whole.read_bytes()[:1600])
    compressed = tmp_path / "a.tar.gz"
    compressed.write_bytes(gzip.compress(whole.read_bytes()))
    for name, code in ((whole, 0), (cut, 1), (compressed, 2)):
        result = CliRunner().invoke(app, ["predict", str(bundle), str(name), "--quiet"])
        assert result.exit_code == code, result.output
    assert "a.tar.gz is a compressed archive. Unpack it" in " ".join(result.stderr.split())


def test_folders_of_results_are_local(folder: Path, tmp_path: Path) -> None:
    from kindsight.errors import SettingsError
    from kindsight.runs.checking.write import claim_folder
    from kindsight.runs.folder import claim_run
    from kindsight.runs.settings import TrainSettings

    with (
        pytest.raises(SettingsError, match="`run` must be on a local disk; got s3://a/b"),
        claim_run(TrainSettings(data=str(folder), run="s3://a/b")),
    ):
        pass
    with pytest.raises(SettingsError, match="`out` must be on a local disk"):
        claim_folder(str(folder), "s3://a/b")
    with pytest.raises(SettingsError, match="cache folder must be on a local disk"):
        Cache("s3://a/b")
