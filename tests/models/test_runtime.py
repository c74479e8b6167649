"""Running LiteRT models: checks of the file, and pools of interpreters."""

import subprocess
import sys

import numpy as np
import pytest

from kindsight.errors import BundleError
from kindsight.models import runtime
from kindsight.models.runtime import Interpreter, InterpreterPool
from kindsight.threads import map_ordered


class FakeInterpreter:
    """A fake interpreter with given inputs and outputs."""

    def __init__(self, inputs, outputs):
        self.inputs, self.outputs = inputs, outputs

    def get_input_details(self):
        return self.inputs

    def get_output_details(self):
        return self.outputs


def tensor(*shape, dtype=np.float32):
    return {"shape": np.array(shape, np.int32), "dtype": dtype, "index": 0}


GOOD_INPUT, GOOD_OUTPUT = tensor(1, 8, 6, 3), tensor(1, 5)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([GOOD_INPUT, GOOD_INPUT], [GOOD_OUTPUT]),
        ([], [GOOD_OUTPUT]),
        ([GOOD_INPUT], [GOOD_OUTPUT] * 3),
        ([GOOD_INPUT], [GOOD_OUTPUT, tensor(2, 1)]),
        ([GOOD_INPUT], []),
        ([tensor(1, 8, 6)], [GOOD_OUTPUT]),
        ([tensor(2, 8, 6, 3)], [GOOD_OUTPUT]),
        ([tensor(1, 3, 8, 6)], [GOOD_OUTPUT]),
        ([tensor(1, 8, 6, 3, dtype=np.uint8)], [GOOD_OUTPUT]),
        ([GOOD_INPUT], [tensor()]),
        ([GOOD_INPUT], [tensor(5)]),
        ([GOOD_INPUT], [tensor(2, 5)]),
        ([GOOD_INPUT], [tensor(1, 5, 5)]),
        ([GOOD_INPUT], [tensor(1, 5, dtype=np.int8)]),
    ],
)
def test_models_with_other_inputs_or_outputs_are_rejected(monkeypatch, inputs, outputs):
    monkeypatch.setattr(runtime, "make_interpreter", lambda *_: FakeInterpreter(inputs, outputs))
    with pytest.raises(BundleError, match=r"any\.tflite"):
        Interpreter("any.tflite")


def test_size_and_width_of_a_model(monkeypatch):
    monkeypatch.setattr(
        runtime, "make_interpreter", lambda *_: FakeInterpreter([GOOD_INPUT], [GOOD_OUTPUT])
    )
    found = Interpreter("any.tflite")
    assert (found.size, found.width) == ((8, 6), 5)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x1c\0\0\0TFL3" + b"\xff" * 500])
def test_files_that_are_no_models_are_rejected(tmp_path, content):
    (tmp_path / "bad.tflite").write_bytes(content)
    with pytest.raises(BundleError, match="LiteRT model"):
        Interpreter(tmp_path / "bad.tflite")
    with pytest.raises(BundleError, match="LiteRT model"):
        InterpreterPool(tmp_path / "absent.tflite")


def images(count, size):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, *size, 3), dtype=np.uint8)


def test_a_pool_gives_the_results_of_one_interpreter(backbone):
    single = Interpreter(backbone.tflite)
    assert single.size == (64, 64) and single.width == backbone.layout.width
    pixels = images(6, single.size)
    wanted = np.stack([single(image) for image in pixels])
    assert wanted.dtype == np.float32 and wanted.shape == (6, single.width)
    assert len(np.unique(wanted[:, 0])) == 6
    pool = InterpreterPool(backbone.tflite, 2)
    results = np.stack(list(map_ordered(pool.run, pixels, 3)))
    np.testing.assert_array_equal(results, wanted)


def test_a_pool_has_no_more_interpreters_than_workers(backbone, monkeypatch):
    created, running, most = [], [], []

    class Counting(Interpreter):
        def __init__(self, *arguments, **options):
            created.append(self)
            super().__init__(*arguments, **options)

        def run(self, image):
            running.append(self)
            most.append(len(running))
            assert running.count(self) == 1  # never two images in one interpreter
            result = super().run(image)
            running.remove(self)
            return result

    monkeypatch.setattr(runtime, "Interpreter", Counting)
    pool = InterpreterPool(backbone.tflite, 2)
    assert len(created) == 1  # the second is created when needed
    list(map_ordered(pool.run, images(12, pool.size), 5))
    assert len(created) <= 2 and max(most) <= 2


def test_an_image_of_another_size_is_an_error_and_leaves_the_pool_usable(backbone):
    pool = InterpreterPool(backbone.tflite, 1)
    with pytest.raises(BundleError, match="takes images of shape"):
        pool.run(np.zeros((32, 32, 3), np.uint8))
    assert np.isfinite(pool.run(np.zeros((64, 64, 3), np.uint8))).all()


def test_nothing_is_printed(backbone, environment):
    code = (
        "import numpy as np\n"
        "from kindsight.models.runtime import Interpreter\n"
        f"Interpreter({str(backbone.tflite)!r})(np.zeros((64, 64, 3), np.uint8))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
