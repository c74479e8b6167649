"""The GPU: what is visible, what is chosen, and what happens when it fails; no GPU is needed."""

import json
import os
import platform
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from kindsight.errors import KindsightError, SettingsError, WeightsError
from kindsight.models.runtime import InterpreterPool
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.models.worker import device as devices
from kindsight.models.worker.device import (
    choose_device,
    device_faults,
    on_cpu,
    start_gpu,
    visible_gpus,
)
from kindsight.models.worker.gpu_pool import GPU_THREADS, GpuPool, open_pool
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import map_ordered


@pytest.fixture(autouse=True)
def linux(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def machine(root, *files, **contents):
    """Make the files of a machine, and some with contents."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for number, text in enumerate(contents.values()):
        file = root / f"proc/driver/nvidia/gpus/0000:0{number}:00.0/information"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return root


@pytest.fixture
def one_gpu(tmp_path, monkeypatch):
    """A machine with one GPU, and a TensorFlow that might use it."""
    root = machine(
        tmp_path / "machine", "dev/nvidia0", a="Model: \t\t NVIDIA Fake 3000\nIRQ: \t\t 24\n"
    )
    monkeypatch.setattr(devices, "_ROOT", root)
    monkeypatch.setattr(devices, "installed_fault", lambda: "")


@pytest.mark.parametrize(
    ("files", "information", "expected"),
    [
        ([], {}, ()),
        (["dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-caps/nvidia-cap1"], {}, ()),
        (["dev/nvidia0"], {}, ("NVIDIA GPU",)),
        (
            ["dev/nvidia0", "dev/nvidia1", "dev/nvidiactl"],
            {"a": "Model: \t\t Tesla T4\n", "b": "Model: NVIDIA A100\nIRQ: 3"},
            ("Tesla T4", "NVIDIA A100"),
        ),
        # A container that has one of two GPUs: which of them is unknown.
        (["dev/nvidia1"], {"a": "Model: Tesla T4", "b": "Model: A100"}, ("NVIDIA GPU",)),
        (["dev/nvidia0"], {"a": "\0\xff"}, ("NVIDIA GPU",)),
        (["dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"], {}, ("NVIDIA GPU",)),
        (["dev/dxg"], {}, ()),
    ],
)
def test_gpus_are_found_by_their_device_files(tmp_path, files, information, expected):
    assert visible_gpus(machine(tmp_path, *files, **information)) == expected


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles", "-1,0"])
def test_cudas_own_variable_hides_every_gpu(tmp_path, monkeypatch, value):
    root = machine(tmp_path, "dev/nvidia0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus(root) == ()
    monkeypatch.setattr(devices, "_ROOT", root)
    (fault,) = device_faults("gpu")
    assert f"CUDA_VISIBLE_DEVICES={value} hides every GPU" in fault
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert visible_gpus(root) == ("NVIDIA GPU",)


def test_other_systems_have_no_gpu_for_tensorflow(tmp_path, monkeypatch):
    root = machine(tmp_path, "dev/nvidia0")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert visible_gpus(root) == ()
    assert "not on Darwin" in device_faults("gpu")[0]


def test_the_choice_follows_the_setting_the_machine_and_the_installed_tensorflow(
    one_gpu, tmp_path, monkeypatch
):
    assert choose_device("auto") == choose_device("gpu") == (True, "")
    assert choose_device("cpu") == (False, "")
    assert device_faults("gpu") == device_faults("auto") == []
    # tensorflow-cpu has no CUDA, whatever the machine has: it is not started to ask.
    monkeypatch.setattr(devices, "installed_fault", lambda: "tensorflow-cpu has no CUDA.")
    use, note = choose_device("auto")
    assert not use and "not the NVIDIA Fake 3000: tensorflow-cpu has no CUDA." in note
    assert "tensorflow-cpu has no CUDA" in device_faults("gpu")[0]
    monkeypatch.setattr(devices, "_ROOT", tmp_path / "nothing")
    assert choose_device("auto") == (False, "")
    assert "No NVIDIA GPU is visible" in device_faults("gpu")[0]


@pytest.mark.parametrize(
    ("installed", "fault"),
    [(["tensorflow-cpu"], True), (["tensorflow", "tensorflow-cpu"], False), ([], False)],
)
def test_tensorflow_for_cpus_is_known_by_its_name(monkeypatch, installed, fault):
    monkeypatch.setattr(devices, "_is_installed", lambda name: name in installed)
    assert ("pip install 'kindsight[cuda]'" in devices.installed_fault()) == fault
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "TensorFlow is not installed" in devices.installed_fault()


def test_bfloat16_is_not_chosen_where_a_gpu_may_train(one_gpu, monkeypatch):
    monkeypatch.setattr("kindsight.models.steps.compute_dtype.has_fast_bfloat16", lambda: True)
    assert choose_compute_dtype("auto", batch_norm=False) == "bfloat16"
    assert choose_compute_dtype("auto", batch_norm=False, device="cpu") == "bfloat16"
    assert choose_compute_dtype("auto", batch_norm=False, device="auto") == "float32"
    assert choose_compute_dtype("bfloat16", batch_norm=False, device="gpu") == "bfloat16"


# In the worker process, with a list of devices in TensorFlow's place.


@pytest.fixture
def tensorflow(monkeypatch):
    """A TensorFlow that lists two GPUs and records what is set."""
    calls = []
    found = types.SimpleNamespace(gpus=["GPU:0", "GPU:1"], cuda=True, error=None, calls=calls)

    def convolve(*_):
        if found.error is not None:
            raise found.error
        return types.SimpleNamespace(numpy=lambda: calls.append("convolution"))

    class On:
        def __init__(self, name):
            calls.append(name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    experimental = types.SimpleNamespace(
        set_memory_growth=lambda gpu, on: calls.append((gpu, on)),
        enable_tensor_float_32_execution=lambda on: calls.append(("TF32", on)),
        get_device_details=lambda gpu: {"device_name": "Fake 3000"} if gpu == "GPU:0" else {},
    )
    config = types.SimpleNamespace(
        list_physical_devices=lambda kind: found.gpus if kind == "GPU" else ["CPU:0"],
        set_visible_devices=lambda gpus, kind: calls.append((tuple(gpus), kind)),
        experimental=experimental,
    )
    fake = types.SimpleNamespace(
        __version__="2.99", config=config, device=On, ones=lambda shape: shape,
        test=types.SimpleNamespace(is_built_with_cuda=lambda: found.cuda),
        nn=types.SimpleNamespace(conv2d=convolve),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    monkeypatch.setattr(devices, "_gpu", "")
    monkeypatch.setenv("KINDSIGHT_WORKER_GPU", "1")
    return found


def test_the_first_gpu_is_used_without_taking_all_its_memory(tensorflow):
    assert start_gpu() == {"gpu": "Fake 3000"}
    assert tensorflow.calls == [
        (("GPU:0",), "GPU"), ("GPU:0", True), ("TF32", False), "GPU:0", "convolution",
    ]  # fmt: skip
    assert devices.on_gpu() and devices.device_name() == "GPU:0"
    # What is built, converted or verified stays on the CPU.
    job = on_cpu(lambda values, _: {**values, "placed": tensorflow.calls[-1]})
    assert job({"a": 1}, None) == {"a": 1, "placed": "CPU:0"}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"cuda": False}, "2.99 is built without CUDA"),
        ({"gpus": []}, "finds no GPU; the CUDA libraries are missing"),
        ({"error": MemoryError("out of memory on the device")}, "MemoryError: out of memory"),
        ({"error": RuntimeError("DNN library is not found.")}, "DNN library is not found"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_reported_with_its_reason(tensorflow, change, fault):
    vars(tensorflow).update(change)
    found = start_gpu()
    assert [*found] == ["gpu_fault"] and fault in found["gpu_fault"]
    assert not devices.on_gpu() and devices.device_name() == "CPU:0"


def test_a_worker_on_the_cpu_asks_for_no_device(tensorflow, monkeypatch):
    monkeypatch.setenv("KINDSIGHT_WORKER_GPU", "")
    assert start_gpu() == {} and tensorflow.calls == []


# The parent's side, with a few lines of Python in the worker's place.

REPLY_DEVICE = """
import os
gpu = os.environ["KINDSIGHT_WORKER_GPU"]
visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
"""
WORKING = (
    REPLY_DEVICE
    + """
reply(versions={}, **({"gpu": "Fake 3000"} if gpu else {}))
for job in jobs():
    reply(gpu=gpu, visible=visible)
"""
)


def test_a_worker_sees_gpus_only_if_it_is_to_use_one(make_process, one_gpu):
    for device, gpu, visible in (("cpu", "", "-1"), ("auto", "1", "all"), ("gpu", "1", "all")):
        process = make_process(WORKING, device=device)
        found = process.run_job(job="train")
        assert (found["gpu"], found["visible"]) == (gpu, visible)
        assert process.gpu == ("Fake 3000" if gpu else "")
        expected = ["Computed on the GPU Fake 3000: training."] if gpu else []
        assert process.device_notes() == expected


def test_without_a_gpu_the_worker_is_not_asked(make_process, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_ROOT", tmp_path / "nothing")
    process = make_process(WORKING, device="auto")
    assert not process.wants_gpu(10**6) and not process.find_gpu() and process.pid is None
    assert process.run_job(job="train")["visible"] == "-1"
    assert process.device_notes() == []


@pytest.mark.parametrize(
    "start",
    [
        'reply(versions={}, gpu_fault="cuDNN is missing.") if gpu else reply(versions={})',
        'os._exit(print("cuDNN is missing.", file=sys.stderr) or 9) if gpu else reply(versions={})',
    ],
)
def test_an_unusable_gpu_leads_to_the_cpu_with_a_note(make_process, one_gpu, start):
    code = f"{REPLY_DEVICE}\n{start}\nfor job in jobs(): reply(visible=visible)\n"
    process = make_process(code, device="auto")
    assert process.run_job(job="train")["visible"] == "-1"
    (note,) = process.device_notes()
    assert note.startswith("The CPU was used, not the NVIDIA Fake 3000: ")
    assert "cuDNN is missing." in note
    assert process.run_job(job="train")["visible"] == "-1" and len(process.notes) == 1

    process = make_process(code, device="gpu")
    for _ in range(2):  # the next job does not run on the CPU either
        with pytest.raises(KindsightError, match=r'cuDNN is missing\.[^"]*`device="cpu"`'):
            process.run_job(job="train")


FAILING = (
    REPLY_DEVICE
    + """
reply(versions={}, **({"gpu": "Fake 3000"} if gpu else {}))
for job in jobs():
    if job.get("epochs"):
        print('{"event": "epoch"}', flush=True)
    if gpu:
        message = {"ok": False, "error": job["error"], "message": "out of memory"}
        print(json.dumps(message), flush=True)
    else:
        reply(visible=visible)
"""
)


def test_a_job_that_fails_on_the_gpu_runs_again_on_the_cpu(make_process, one_gpu):
    process = make_process(FAILING, device="auto")
    found = process.run_job(lambda message: None, job="train", error="ResourceExhaustedError")
    assert found["visible"] == "-1"
    (note,) = process.device_notes()
    assert "not the Fake 3000" in note and "ResourceExhaustedError: out of memory" in note
    with pytest.raises(KindsightError, match=r"GPU cannot be used: .*out of memory"):
        make_process(FAILING, device="gpu").run_job(job="train", error="ResourceExhaustedError")


def test_a_job_does_not_run_again_where_its_epochs_were_shown_or_its_data_are_wrong(
    make_process, one_gpu
):
    process, shown = make_process(FAILING, device="auto"), []
    with pytest.raises(KindsightError, match="out of memory"):
        process.run_job(shown.append, job="train", error="ResourceExhaustedError", epochs=True)
    assert shown == [{"event": "epoch"}] and process.notes == []
    for error, kind in (("SettingsError", SettingsError), ("WeightsError", WeightsError)):
        with pytest.raises(kind):
            make_process(FAILING, device="auto").run_job(job="train", error=error)


# Features: LiteRT runs in the worker's place of a GPU.

NETWORK = (
    REPLY_DEVICE
    + """
import numpy as np
from pathlib import Path
from kindsight.models.runtime import Interpreter
sizes, network = [], None
reply(versions={}, **({"gpu": "Fake 3000"} if gpu else {}))
for job in jobs():
    pixels = np.load(job["pixels"])
    network = network or Interpreter(Path(job["model"]).with_suffix(".tflite"))
    sizes.append(len(pixels))
    Path("SIZES").write_text(json.dumps(sizes))
    if len(sizes) > LAST:
        print(json.dumps({"ok": False, "error": "InternalError", "message": "lost"}), flush=True)
        continue
    time.sleep(0.02)
    np.save(job["out"], np.stack([network(image) for image in pixels]) * FACTOR)
    reply()
"""
)


@pytest.fixture
def gpu_of(make_process, one_gpu, tmp_path):
    """Return a process with a GPU that multiplies features by `factor`, and its batches."""

    def start(factor=1.0, last=10**6, device="auto"):
        code = NETWORK.replace("FACTOR", f"np.float32('{factor}')").replace("LAST", str(last))
        process = make_process(code.replace("SIZES", str(tmp_path / "sizes")), device=device)
        return process, lambda: json.loads((tmp_path / "sizes").read_text())

    return start


def pool_of(process, built, images=10**6):
    return open_pool(process, built.keras, built.tflite, workers=2, images=images)


def random_images(count, size=(64, 48)):
    return [*np.random.default_rng(3).integers(0, 256, (count, *size, 3), np.uint8)]


def test_the_gpu_computes_the_images_of_all_threads_in_batches(gpu_of, built):
    process, sizes = gpu_of()
    pool = pool_of(process, built)
    assert isinstance(pool, GpuPool) and pool.workers == GPU_THREADS
    images = random_images(100)
    found = [*map_ordered(pool.run, images, pool.workers)]
    expected = InterpreterPool(built.tflite, 2).run_all(images)
    np.testing.assert_array_equal(found, expected)
    # The comparison with LiteRT, then few and large batches: each image once.
    first, *batches = sizes()
    assert first == 8 and sum(batches) == 100 and max(batches) > 8
    (note,) = process.device_notes()
    assert note.startswith(
        "Computed on the GPU Fake 3000: features (they differ from LiteRT's by 0"
    )


def test_features_beyond_the_tolerance_are_not_used(gpu_of, built):
    for factor in (1.001, np.nan):
        process, sizes = gpu_of(factor)
        pool = pool_of(process, built)
        assert isinstance(pool, InterpreterPool) and sizes() == [8]
        (note,) = process.device_notes()
        assert "features differ from LiteRT's by" in note and "0.0001 is allowed" in note
    with pytest.raises(KindsightError, match="features differ from LiteRT"):
        pool_of(gpu_of(1.001, device="gpu")[0], built)
    # Rounding is no reason to leave the GPU.
    process, _ = gpu_of(1.00001)
    assert isinstance(pool_of(process, built), GpuPool)
    assert "by 1e-05 of the largest" in process.device_notes()[0]


def test_litert_takes_over_from_a_gpu_that_fails_on_the_way(gpu_of, built):
    images = random_images(40)
    expected = InterpreterPool(built.tflite, 2).run_all(images)
    process, sizes = gpu_of(last=2)
    pool = pool_of(process, built)
    np.testing.assert_array_equal([*map_ordered(pool.run, images, 4)], expected)
    assert len(sizes()) == 3
    computed, note = process.device_notes()
    assert computed.startswith("Computed on the GPU") and "InternalError: lost" in note

    process, _ = gpu_of(last=0)  # at once
    assert isinstance(pool_of(process, built), InterpreterPool)
    pool = pool_of(gpu_of(last=1, device="gpu")[0], built)
    with pytest.raises(KindsightError, match="The GPU cannot be used"):
        pool.run(images[0])


def test_few_images_are_not_worth_the_start_of_a_gpu(gpu_of, built):
    process, _ = gpu_of()
    assert isinstance(pool_of(process, built, images=100), InterpreterPool)
    assert process.pid is None
    assert isinstance(pool_of(process, built, images=1000), GpuPool)
    assert isinstance(pool_of(process, built, images=1), GpuPool)  # it has been started
    assert isinstance(pool_of(gpu_of(device="gpu")[0], built, images=1), GpuPool)
    assert isinstance(pool_of(None, built), InterpreterPool)


def test_looking_for_a_gpu_does_not_import_tensorflow():
    code = (
        "import sys\n"
        "from kindsight.models.worker.device import choose_device, device_faults\n"
        "choose_device('auto'), device_faults('gpu')\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


PLACED = """
import sys
import numpy as np
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
from kindsight.models import keras_jobs
models, real = [], keras_jobs.load_network
keras_jobs.load_network = lambda file: models.append(real(file)) or models[-1]
keras_jobs.device_name = lambda: "CPU:1"
run = keras_jobs.device_function(sys.argv[1])
np.save(sys.argv[3], run(np.load(sys.argv[2])))
print({variable.value.device.rpartition("device:")[2] for variable in models[0].variables})
"""


@pytest.mark.slow
def test_a_network_is_placed_on_the_device_and_agrees_with_litert(built, tmp_path):
    """A second CPU device of TensorFlow stands in for the GPU."""
    images = random_images(5)
    np.save(tmp_path / "pixels.npy", images)
    out = tmp_path / "out.npy"
    command = [sys.executable, "-c", PLACED, str(built.keras), str(tmp_path / "pixels.npy"), out]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "{'CPU:1'}"
    expected = np.stack(InterpreterPool(built.tflite, 1).run_all(images))
    assert np.abs(np.load(out) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_a_worker_without_cuda_says_so_and_computes_on_the_cpu(built, one_gpu):
    """The installed TensorFlow is one for CPUs."""
    images = np.stack(random_images(3))
    with KerasProcess(device="auto") as process:
        assert not process.find_gpu()
        (note,) = process.device_notes()
        assert "is built without CUDA" in note or "finds no GPU" in note
        outputs = process.run_network(Path(built.keras), images)
        maps = process.run_network(Path(built.keras), images, "stage3")
    expected = np.stack(InterpreterPool(built.tflite, 1).run_all([*images]))
    assert np.abs(outputs - expected).max() < 1e-4 * np.abs(expected).max()
    # The first features are the means of the activations at stage 3, an eighth of 64 x 48 pixels.
    assert built.layout.names[0] == "stage3_mean"
    means = maps.reshape(3, 8 * 6, -1).mean(1)
    np.testing.assert_allclose(means, outputs[:, : means.shape[1]], rtol=1e-4, atol=1e-5)
