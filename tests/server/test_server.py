"""The routes of a server, without a network: answers, refusals, corrections, figures."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fastapi import FastAPI, Request
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

import tiny_conv
from kindsight.cli.app import app as command
from kindsight.dataset import open_dataset
from kindsight.digest import content_digest
from kindsight.errors import SettingsError
from kindsight.predictor import Prediction
from kindsight.server.app import create_app
from kindsight.server.corrections import CorrectionStore
from kindsight.server.engine import Job
from kindsight.server.settings import ServerSettings
from kindsight.server.uploads import ClientGoneError
from tiny_bundle import COLOURS, probabilities, write_bundle, write_image

PREDICT = "/v1/predict"
OCTETS = {"content-type": "application/octet-stream"}
TOKEN = "correct horse battery staple".replace(" ", "-")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles m and conv, and images of the colours."""
    made = tmp_path_factory.mktemp("served")
    write_bundle(made / "m")
    tiny_conv.write_bundle(made / "conv", tiny_conv.colour_weights(), fit="crop")
    for name, colour in COLOURS.items():
        write_image(made / f"{name}.png", colour)
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app([folder / "m", folder / "conv"])) as made:
        yield made


def app_with(folder: Path, **settings: Any) -> FastAPI:
    return create_app([folder / "m"], ServerSettings(**settings))


def read(folder: Path, colour: str) -> bytes:
    return (folder / f"{colour}.png").read_bytes()


def problem(answer: Any, status: int) -> str:
    """Check that an answer is a problem of this status; return its detail."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert set(content) == {"type", "title", "status", "detail"}
    assert content["status"] == status
    detail: str = content["detail"]
    assert detail.endswith(".")
    return detail


def test_all_forms_of_a_request_have_the_answer_of_the_command(
    folder: Path, client: TestClient
) -> None:
    files = [str(folder / f"{name}.png") for name in COLOURS]
    lines = CliRunner().invoke(command, ["predict", str(folder / "m"), *files, "--json"]).stdout
    expected = []
    for line in lines.splitlines():
        row = json.loads(line)
        expected.append({"name": Path(row.pop("path")).name, **row})
    assert [row["label"] for row in expected] == list(COLOURS)

    contents = [(f"{name}.png", read(folder, name)) for name in COLOURS]
    form = client.post(PREDICT, files=[("images", content) for content in contents])
    encoded = [{"name": name, "base64": base64.b64encode(data).decode()} for name, data in contents]
    sent = client.post("/v1/models/m/predict", json={"images": encoded})
    for answer in (form, sent):
        assert answer.status_code == 200
        assert answer.json()["predictions"] == expected
        # To the digit.
        assert json.dumps(expected, ensure_ascii=False)[1:-1] in answer.text
    for number, (_, data) in enumerate(contents):
        (found,) = client.post(PREDICT, content=data, headers=OCTETS).json()["predictions"]
        assert found == {**expected[number], "name": "image-000000"}


def test_probabilities_are_those_worked_out_by_hand(folder: Path, client: TestClient) -> None:
    (found,) = client.post(PREDICT, content=read(folder, "green"), headers=OCTETS).json()[
        "predictions"
    ]
    assert found["probabilities"] == pytest.approx(probabilities((0, 255, 0)), abs=1e-6)


def test_an_unreadable_image_does_not_affect_the_others(folder: Path, client: TestClient) -> None:
    files = [("images", ("bad.jpg", b"no image")), ("images", ("b.png", read(folder, "blue")))]
    bad, good = client.post(PREDICT, files=files).json()["predictions"]
    assert (bad["name"], bad["label"], bad["error"]["code"]) == ("bad.jpg", None, "not-an-image")
    assert (good["label"], good["error"]) == ("blue", None)


def test_top_k(folder: Path, client: TestClient) -> None:
    answer = client.post(f"{PREDICT}?top_k=2", content=read(folder, "red"), headers=OCTETS)
    (found,) = answer.json()["predictions"]
    assert len(found["probabilities"]) == 2
    assert next(iter(found["probabilities"])) == "red"


def test_sets_need_held_out_predictions_and_the_folder_stays_unnamed(
    folder: Path, client: TestClient
) -> None:
    answer = client.post(f"{PREDICT}?sets=0.9", content=read(folder, "red"), headers=OCTETS)
    assert str(folder) not in problem(answer, 422)


def test_sets_and_reasons_are_those_of_the_command(folder: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "sets")
    content = json.loads((bundle / "bundle.json").read_text("utf-8"))
    content["uncertainty"] = {
        "unsure": {"threshold": 0.5},
        "sets": {
            "confidence_level": 0.9, "images": 150, "source": "out-of-fold predictions",
            "mean_size": 1.0, "method": "lac", "per_class": False,
            "scores": [[number / 100 for number in range(50)]] * 3,
        },
    }  # fmt: skip
    (bundle / "bundle.json").write_text(json.dumps(content), "utf-8")
    grey = write_image(tmp_path / "grey.png", (120, 130, 125))
    arguments = ["predict", str(bundle), str(grey), "--json", "--sets", "0.9"]
    expected = json.loads(CliRunner().invoke(command, arguments).stdout)
    assert expected["reason"] == "unsure"
    assert expected["prediction_set"] is not None
    with TestClient(create_app([bundle])) as client:
        answer = client.post(f"{PREDICT}?sets=0.9", content=grey.read_bytes(), headers=OCTETS)
        (found,) = answer.json()["predictions"]
        assert found == {"name": "image-000000", **{k: expected[k] for k in found if k != "name"}}


def decoded(uri: str, kind: str) -> Image.Image:
    start = f"data:image/{kind};base64,"
    assert uri.startswith(start)
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(start))))


def test_the_heat_map_lies_over_the_whole_image_and_shows_what_counts(
    folder: Path, client: TestClient
) -> None:
    # A wide image of which the network sees the middle square; a red patch in its upper left.
    image = np.full((100, 200, 3), 40, np.uint8)
    image[10:40, 60:90] = (255, 0, 0)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    address = "/v1/models/conv/predict?explain=true&thumbnail=50"
    answer = client.post(address, content=file.getvalue(), headers=OCTETS)
    (found,) = answer.json()["predictions"]
    assert (found["label"], found["size"], found["heat_map_error"]) == ("red", [100, 200], None)
    alpha = np.asarray(decoded(found["heat_map"], "png"))[..., 3]
    assert alpha.shape == (100, 200)
    assert alpha[:, :45].max() == alpha[:, 155:].max() == 0
    row, column = np.unravel_index(alpha.argmax(), alpha.shape)
    assert 5 <= row <= 45
    assert 55 <= column <= 95
    assert decoded(found["thumbnail"], "jpeg").size == (50, 25)


def test_a_network_without_feature_maps_says_why_there_is_no_heat_map(
    folder: Path, client: TestClient
) -> None:
    assert client.get("/v1/models/m").json()["explains"] is False
    answer = client.post(f"{PREDICT}?explain=true", content=read(folder, "red"), headers=OCTETS)
    (found,) = answer.json()["predictions"]
    assert (found["label"], found["heat_map"]) == ("red", None)
    assert found["heat_map_error"]["code"] == "no-heat-map"


def test_models_are_listed_and_described(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["models"]
    assert [each["name"] for each in listed] == ["m", "conv"]
    found = client.get("/v1/models/m").json()
    assert found["version"] == listed[0]["version"]
    assert found["classes"] == ["blue", "green", "red"]
    assert found["input"]["resize"]["height"] == 8
    assert "m, conv" in problem(client.get("/v1/models/x"), 404)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["models"] == listed


def test_other_addresses_methods_and_content_are_problems(client: TestClient) -> None:
    problem(client.get("/v1/nothing"), 404)
    assert client.get(PREDICT).headers["allow"] == "POST"
    problem(client.get(PREDICT), 405)
    problem(client.post(PREDICT, content=b"x", headers={"content-type": "text/html"}), 415)
    assert "top_k" in problem(client.post(f"{PREDICT}?top_k=0", content=b"x", headers=OCTETS), 422)


def test_a_parameter_that_does_not_exist_is_named(folder: Path, client: TestClient) -> None:
    for path in (PREDICT, "/v1/models/m/predict"):
        answer = client.post(f"{path}?topk=1", content=read(folder, "red"), headers=OCTETS)
        assert problem(answer, 422) == (
            "There is no parameter 'topk' here; use top_k, sets, explain or thumbnail."
        )


def test_an_error_of_the_program_is_a_problem_without_its_details(folder: Path) -> None:
    app = app_with(folder)
    app.state.serving.models.get().predictor.predict_here = None
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post(PREDICT, content=read(folder, "red"), headers=OCTETS)
        assert "NoneType" not in problem(answer, 500)


def test_answers_forbid_what_a_browser_might_do_with_them(client: TestClient) -> None:
    for answer in (client.get("/v1/models"), client.get("/nothing"), client.post(PREDICT)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_token_is_needed_but_for_probes(folder: Path) -> None:
    with TestClient(app_with(folder, token=TOKEN)) as client:
        for path in ("/healthz", "/readyz", "/v2/health/live"):
            assert client.get(path).status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v2"):
            assert client.get(path).status_code == 401
        answer = client.post(PREDICT, content=read(folder, "red"), headers=OCTETS)
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \u00e9"):
            headers = {"authorization": wrong.encode("latin-1")}
            assert client.get("/v1/models", headers=headers).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/models", headers=right).status_code == 200
        # A browser adds no token by itself: other sites cannot, either.
        answer = client.post(
            PREDICT, content=read(folder, "red"),
            headers=OCTETS | right | {"origin": "https://elsewhere.example"},
        )  # fmt: skip
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("LOCALHOST.", 200),
        ("evil.example:8000", 421), ("localhost.evil.example", 421), ("", 421),
    ],
)  # fmt: skip
def test_the_host_must_be_the_servers(folder: Path, host: str, status: int) -> None:
    hosts = ("localhost", "127.0.0.1", "::1")
    with TestClient(app_with(folder, hosts=hosts)) as client:
        answer = client.get("/v1/models", headers={"host": host})
        assert answer.status_code == status
        if status == 421:
            assert "but localhost, 127.0.0.1 or ::1. If" in problem(answer, 421)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200), ("http://localhost:8000", 200), ("http://evil.example", 403),
        ("http://localhost:3000", 403), ("null", 403), ("http://[", 403),
    ],
)  # fmt: skip
def test_no_page_of_another_site_can_send_images(
    folder: Path, client: TestClient, origin: str | None, status: int
) -> None:
    headers = OCTETS | {"host": "localhost:8000"} | ({} if origin is None else {"origin": origin})
    answer = client.post(PREDICT, content=read(folder, "red"), headers=headers)
    assert answer.status_code == status


class Occupied:
    """All threads of a server at work until the block ends."""

    def __init__(self, app: FastAPI) -> None:
        self._engine = app.state.serving.engine
        self._opened = threading.Event()

    def __enter__(self) -> None:
        class Waiting(Job):
            def __init__(self, opened: threading.Event) -> None:
                self.opened = opened

            def run(self) -> None:
                self.opened.wait(30)

        count = self._engine.workers
        self._engine.submit([Waiting(self._opened) for _ in range(count)])
        end = time.monotonic() + 30
        while self._engine.running < count:
            assert time.monotonic() < end
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._opened.set()


def test_a_full_queue_is_429_and_the_server_still_says_how_it_is(folder: Path) -> None:
    app = app_with(folder, workers=1, queue=2, files=2)
    red = read(folder, "red")
    with TestClient(app) as client, ThreadPoolExecutor(2) as pool, Occupied(app):
        waiting = [pool.submit(client.post, PREDICT, content=red, headers=OCTETS) for _ in range(2)]
        end = time.monotonic() + 30
        while app.state.serving.engine.waiting < 2:
            assert time.monotonic() < end
            time.sleep(0.005)
        answer = client.post(PREDICT, content=red, headers=OCTETS)
        assert "2 images are waiting" in problem(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        text = client.get("/metrics").text
        assert "kindsight_queue_images 2.0" in text
    # The exit of the block opened the threads: what waited was answered.
    assert [each.result().status_code for each in waiting] == [200, 200]


def test_predictions_that_take_too_long_are_given_up_and_leave_the_queue(folder: Path) -> None:
    app = app_with(folder, workers=1, seconds=0.2)
    with TestClient(app) as client, Occupied(app):
        problem(client.post(PREDICT, content=read(folder, "red"), headers=OCTETS), 504)
        assert app.state.serving.engine.waiting == 0


def test_the_work_of_a_client_that_is_gone_is_dropped(folder: Path) -> None:
    ran: list[int] = []

    class Gone:
        """A request whose client closes its connection as soon as its images wait."""

        async def receive(self) -> dict[str, str]:
            while engine.waiting < 3:
                await asyncio.sleep(0.005)
            return {"type": "http.disconnect"}

    async def send(app: FastAPI) -> None:
        works = [partial(ran.append, number) for number in range(3)]
        await app.state.serving.run(cast(Request, Gone()), works)

    app = app_with(folder, workers=1)
    engine = app.state.serving.engine
    with TestClient(app) as client:
        with Occupied(app):
            assert client.portal is not None
            with pytest.raises(ClientGoneError):
                client.portal.call(send, app)
            assert engine.waiting == 0
        assert client.post(PREDICT, content=read(folder, "red"), headers=OCTETS).status_code == 200
    assert ran == []


def test_a_request_with_options_has_the_same_answer_as_one_without(client: TestClient) -> None:
    # Requests without options do not pass through FastAPI's routing.
    image = io.BytesIO()
    Image.new("RGB", (8, 8), COLOURS["blue"]).save(image, "PNG")
    for path in (PREDICT, "/v1/models/conv/predict"):
        plain, other = (
            client.post(path + query, content=image.getvalue(), headers=OCTETS)
            for query in ("", "?explain=false")
        )
        assert plain.status_code == other.status_code == 200
        assert plain.content == other.content
        assert plain.headers == other.headers
    assert problem(client.post("/v1/models/x/predict"), 404) == problem(
        client.post("/v1/models/x/predict?explain=false"), 404
    )


def test_a_stopping_server_is_not_ready_and_closes_connections(folder: Path) -> None:
    app = app_with(folder)
    with TestClient(app) as client:
        app.state.serving.stopping = True
        assert client.get("/readyz").status_code == 503
        answer = client.get("/healthz")
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_figures_count_by_route_and_label(folder: Path) -> None:
    with TestClient(app_with(folder)) as client:
        client.post(PREDICT, content=read(folder, "red"), headers=OCTETS)
        client.post(PREDICT, content=b"no image", headers=OCTETS)
        client.post("/v1/models/m/predict?top_k=1", content=b"no image", headers=OCTETS)
        client.post("/v1/models/m/predict", content=b"no image", headers=OCTETS)
        client.post("/v1/models/other/predict", content=b"no image", headers=OCTETS)
        for number in range(3):
            client.get(f"/nothing/{number}")
        answer = client.get("/metrics")
        lines = answer.text.splitlines()
    assert answer.headers["content-type"].startswith("text/plain")
    of_model = "/v1/models/{model}/predict"
    for line in (
        'kindsight_requests_total{method="POST",route="/v1/predict",status="200"} 2.0',
        'kindsight_requests_total{method="GET",route="(none)",status="404"} 3.0',
        f'kindsight_requests_total{{method="POST",route="{of_model}",status="200"}} 2.0',
        f'kindsight_requests_total{{method="POST",route="{of_model}",status="404"}} 1.0',
        'kindsight_images_total{model="m"} 4.0',
        'kindsight_image_errors_total{code="not-an-image",model="m"} 3.0',
        'kindsight_predictions_total{label="red",model="m",reason=""} 1.0',
        'kindsight_request_seconds_count{route="/v1/predict"} 2.0',
        "kindsight_requests_in_flight 1.0",
        "kindsight_queue_images 0.0",
        'kindsight_model_fault{model="m"} 0.0',
    ):
        assert line in lines


def test_labels_beyond_a_number_are_counted_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = tuple(f"class {number:03d}" for number in range(3))
    metrics = app_with(folder).state.serving.metrics
    monkeypatch.setattr("kindsight.server.metrics.MAX_LABELS", 2)
    for number in range(3):
        shares = np.eye(3, dtype=np.float32)[number]
        metrics.count("m", [Prediction("x", names, shares, shares)])
    text = metrics.text().decode()
    assert 'label="class 001"' in text
    assert 'label="class 002"' not in text
    assert 'kindsight_predictions_total{label="(other)",model="m",reason=""} 1.0' in text


def correct(client: TestClient, image: bytes, label: str | None, **more: Any) -> Any:
    correction = {"model": "m", "label": label, "predicted": "blue", **more}
    files = {"image": ("a.png", image), "correction": (None, json.dumps(correction))}
    return client.post("/v1/corrections", files=files)


def test_corrections_are_kept_as_a_dataset(folder: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    red, green = read(folder, "red"), read(folder, "green")
    with TestClient(app_with(folder, keep=keep)) as client:
        answer = correct(client, red, "green")
        assert (answer.status_code, answer.json()["id"]) == (201, content_digest(red))
        correct(client, red, "red")  # the last one counts
        correct(client, green, None)
        rows = list(csv.DictReader(io.StringIO((keep / "corrections.csv").read_text("utf-8"))))
        assert [(row["label"], row["predicted"]) for row in rows] == [("red", "blue"), ("", "blue")]
        assert [(keep / row["path"]).read_bytes() for row in rows] == [red, green]
        gone = client.delete(f"/v1/corrections/{content_digest(red)}")
        assert gone.status_code == 204
        problem(client.delete(f"/v1/corrections/{content_digest(red)}"), 404)
    assert len((keep / "corrections.csv").read_text("utf-8").splitlines()) == 2
    assert [path.read_bytes() for path in (keep / "images").iterdir()] == [green]


def test_corrections_can_be_trained_on(folder: Path, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    with TestClient(app_with(folder, keep=keep)) as client:
        for number, label in enumerate(["red", "blue", None]):
            image = write_image(tmp_path / "x.png", (number, 0, 0)).read_bytes()
            assert correct(client, image, label).status_code == 201
    dataset = open_dataset(str(keep / "corrections.csv"))
    assert sorted(dataset.classes) == ["blue", "red"]
    assert len(dataset) == 2


def test_corrections_must_be_readable_and_of_a_class(folder: Path, tmp_path: Path) -> None:
    with TestClient(app_with(folder, keep=tmp_path / "keep")) as client:
        red = read(folder, "red")
        assert "class of m" in problem(correct(client, red, "purple"), 422)
        assert "class of m" in problem(correct(client, red, "red", predicted="purple"), 422)
        problem(correct(client, b"no image", "red"), 422)
        problem(correct(client, red, "red", model="other"), 404)
        problem(correct(client, red, "red", more=1), 422)
        problem(client.post("/v1/corrections", files={"image": ("a.png", red)}), 422)
    assert list((tmp_path / "keep" / "images").iterdir()) == []
    with TestClient(app_with(folder)) as client:
        assert "no corrections" in problem(correct(client, red, "red"), 404)


def test_corrections_are_bounded(folder: Path, tmp_path: Path) -> None:
    red = read(folder, "red")
    settings = {"keep": tmp_path / "keep", "keep_bytes": len(red)}
    with TestClient(app_with(folder, **settings)) as client:
        assert correct(client, red, "red").status_code == 201
        assert correct(client, red, "blue").status_code == 201  # it is there already
        problem(correct(client, read(folder, "green"), "green"), 507)


def test_corrections_of_several_threads_and_stores_are_all_kept(tmp_path: Path) -> None:
    stores = [CorrectionStore(tmp_path / "keep", 10**9) for _ in range(2)]
    images = [write_image(tmp_path / "x.png", (number, 1, 2)).read_bytes() for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: stores[n % 2].add(images[n], f"c{n}", None, "m 1"), range(40)))
    rows = list(csv.DictReader((tmp_path / "keep" / "corrections.csv").open(encoding="utf-8")))
    assert sorted(row["label"] for row in rows) == sorted(f"c{number}" for number in range(40))
    assert all((tmp_path / "keep" / row["path"]).exists() for row in rows)


def test_a_folder_with_another_table_is_refused_before_the_start(
    folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "corrections.csv"
    table.write_text("path,label\na.jpg,cat\n", "utf-8")
    with pytest.raises(SettingsError, match="other columns"):
        app_with(folder, keep=tmp_path)
    assert table.read_text("utf-8") == "path,label\na.jpg,cat\n"


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        ({"queue": 0}, "0"),
        ({"files": 9, "queue": 8}, "8"),
        ({"seconds": 0}, "0"),
        ({"body_bytes": 2_000, "memory_bytes": 1}, "1 and 2,000"),
    ],
)
def test_settings_are_checked(wrong: dict[str, Any], got: str) -> None:
    with pytest.raises(SettingsError, match=rf"must be .*; got {got}\.$"):
        ServerSettings(**wrong)
