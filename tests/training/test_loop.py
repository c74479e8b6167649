"""The training loop: epochs, phases, best weights, and resuming after a kill at any moment."""

import json
import math
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy_network import NumpyNetwork, coloured

from kindsight.augment import Augment
from kindsight.errors import DivergedError
from kindsight.training.engine.batches import Batches, prefetch
from kindsight.training.engine.checkpoints import CheckpointWriter, read_checkpoint
from kindsight.training.engine.loop import Loop, StoppedError, TrainingData
from kindsight.training.engine.plan import Phase, Plan


def training_data(count=46, validation=16, seed=0):
    pixels, targets = coloured(count, seed)
    places = np.arange(count)
    train = places[: count - validation]
    kept = places[count - validation :]
    return TrainingData(pixels, train, targets[train], kept, targets[kept], 2)


def loop(plan, network, tmp_path=None, data=None, **options):
    path = None if tmp_path is None else tmp_path / "checkpoint.npz"
    news = []
    made = Loop(
        plan, data or training_data(), network, seed=options.get("seed", 3), key="key",
        writer=options.get("writer") or CheckpointWriter(path, 0.0), send=news.append,
        stop=options.get("stop") or threading.Event(), workers=options.get("workers", 2),
    )  # fmt: skip
    return made, news


def without_time(history):
    return [row.cells()[:2] + row.cells()[3:] for row in history]


PLAN = Plan((Phase("only", 4, 8, "sgd", 0.5, augment=Augment.recipe("light")),))


def test_events_are_in_order():
    network = NumpyNetwork()
    made, news = loop(PLAN, network)
    history = made.run()
    steps = [call for call in network.calls if call[0] == "step"]
    # 30 images in eights: three batches of eight and one of six, four times.
    assert [call[1] for call in steps] == [8, 8, 8, 6] * 4
    assert len({call[3] for call in steps}) == 16 and network.calls[0] == ("begin", "sgd", 0.0)
    assert news[0] == {"event": "start", "epochs": 4, "done": 0}
    epochs = [item for item in news if item["event"] == "epoch"]
    assert [item["epoch"] for item in epochs] == [1, 2, 3, 4] == [r.epoch for r in history]
    last = [item for item in news if item["event"] == "step"][-1]
    assert (last["epoch"], last["step"], last["steps"], last["phase"]) == (4, 4, 4, "only")
    assert last["loss"] == history.rows()[-1].loss and last["images_per_second"] > 0
    assert history.rows()[-1].val_accuracy > 0.8


def test_each_epoch_uses_each_image_once_in_another_order():
    data = training_data()
    batches = Batches(data.inputs, data.rows, data.targets, 2, 8, Augment(), 3)
    for epoch in (1, 2):
        order = batches.order(epoch)
        made = [batches.make(epoch, step, order) for step in range(len(batches))]
        seen = np.concatenate([batch.images for batch in made])
        assert (seen == data.inputs[data.rows[order]]).all()
        targets = np.concatenate([batch.targets for batch in made])
        assert (targets.argmax(1) == data.targets[order]).all()
        assert sorted(order) == list(range(30))
    assert (batches.order(1) != batches.order(2)).any()


def test_batches_do_not_depend_on_threads():
    data = training_data()
    policy = Augment(rotation=20, noise=5, mixup=0.3)
    batches = Batches(data.inputs, data.rows, data.targets, 2, 7, policy, 3)
    order = batches.order(5)
    alone = [batches.make(5, step, order) for step in range(len(batches))]
    backwards = [batches.make(5, step, order) for step in reversed(range(len(batches)))][::-1]
    for one, other in zip(alone, backwards, strict=True):
        assert (one.images == other.images).all() and (one.targets == other.targets).all()
        assert one.random_key == other.random_key
    assert any((batch.targets.max(1) < 1).any() for batch in alone)  # mixed
    histories = []
    for workers in (1, 4):
        network = NumpyNetwork()
        histories.append((without_time(loop(PLAN, network, workers=workers)[0].run()), network))
    assert histories[0][0] == histories[1][0]
    assert (histories[0][1].kernel == histories[1][1].kernel).all()


def test_few_batches_are_prefetched():
    from concurrent.futures import ThreadPoolExecutor

    made, taken = [], 0
    with ThreadPoolExecutor(1) as executor:
        for value in prefetch(lambda step: made.append(step) or step, 2, 40, executor):
            assert value == 2 + taken
            taken += 1
            assert len(made) <= taken + 4
    assert made == list(range(2, 40))


def test_final_weights_are_the_best_or_the_last():
    plan = [Phase("fine", 3, 8, "sgd", 0.3), Phase("wild", 2, 8, "sgd", 4000.0)]
    networks = {}
    for final_weights in ("best", "last"):
        networks[final_weights] = NumpyNetwork()
        history = loop(Plan(plan, final_weights), networks[final_weights])[0].run()
    best = history.best_epoch
    assert best < 5 and history.rows()[-1].val_loss > history.rows()[best - 1].val_loss
    again = NumpyNetwork()
    loop(Plan([Phase("fine", min(best, 3), 8, "sgd", 0.3)], "last"), again)[0].run()
    if best <= 3:
        assert (networks["best"].kernel == again.kernel).all()
    assert (networks["last"].kernel != networks["best"].kernel).any()


def test_monitor_selects_accuracy_or_loss():
    class Told(NumpyNetwork):
        """Is the most often right after the first epoch, and the surest after the second."""

        def __init__(self):
            super().__init__()
            self.judged, self.kernels = 0, []

        def evaluate(self, images, targets):
            self.judged += 1
            self.kernels.append(self.kernel.copy())
            loss, share = [(0.5, 0.9), (0.1, 0.5), (0.3, 0.8)][self.judged - 1]
            return loss * len(targets), int(share * len(targets))

    phases = [Phase("fine", 3, 8, "sgd", 0.3)]
    for monitor, best in (("accuracy", 1), ("loss", 2)):
        network, plan = Told(), Plan(phases, "best", monitor)
        assert Plan.from_dict(plan.to_dict()) == Plan(tuple(phases), "best", monitor)
        assert loop(plan, network)[0].run().best_epoch == best
        assert (network.kernel == network.kernels[best - 1]).all()


def test_early_stopping_ends_a_phase():
    plan = Plan([Phase("still", 9, 8, "sgd", 1e-12, patience=2), Phase("on", 1, 8, "sgd", 0.5)])
    history = loop(plan, NumpyNetwork())[0].run()
    # The first epoch is the best of equals; two more are waited for.
    assert [row.phase for row in history] == ["still"] * 3 + ["on"]


def test_without_validation_the_training_loss_decides():
    data = training_data(30, 0)
    history = loop(PLAN, NumpyNetwork(), data=data)[0].run()
    assert not history.validated and history.best_epoch is not None


def test_nan_loss_ends_the_training():
    network = NumpyNetwork(fail_at=10)  # in the third epoch
    history = loop(PLAN, network)[0].run()
    assert len(history) == 3 and math.isnan(history.rows()[-1].loss)
    assert history.best_epoch in (1, 2)
    assert history.divergence() == (
        "Training diverged: the loss is NaN in epoch 3, at a learning rate of 0.5. "
        "Lower `learning_rate`."
    )


def test_nan_in_the_first_epoch_is_an_error_without_checkpoint(tmp_path):
    # A resumed run would start from the NaN.
    with pytest.raises(
        DivergedError,
        match=r"diverged: the loss is NaN in epoch 1, at a learning rate of 0\.5\. Lower",
    ):
        loop(PLAN, NumpyNetwork(fail_at=2), tmp_path)[0].run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("validation", [16, 0])
@pytest.mark.parametrize("broken", [4, 8, 12])
def test_weights_that_the_last_step_of_an_epoch_made_nan_are_not_kept(validation, broken):
    class Breaks(NumpyNetwork):
        def step(self, images, targets, rate, address):
            found = super().step(images, targets, rate, address)
            if sum(call[0] == "step" for call in self.calls) == broken:
                self.kernel = self.kernel * np.float32("nan")  # the loss was still finite
            return found

    network, epoch = Breaks(), broken // 4
    data = training_data(30 + validation, validation)
    run = loop(PLAN, network, data=data)[0].run
    if epoch == 1:
        with pytest.raises(DivergedError, match=r"is NaN in epoch 1"):
            run()
        return
    history = run()
    assert len(history) == epoch and history.rows()[-1].diverged and history.best_epoch < epoch
    assert np.isfinite(network.kernel).all()


# Going on ---------------------------------------------------------------------------------------


def test_stopped_after_any_step_the_training_ends_the_same(tmp_path):
    wanted = NumpyNetwork()
    history = loop(PLAN, wanted)[0].run()
    path = tmp_path / "checkpoint.npz"
    for stopped in range(1, 16):
        path.unlink(missing_ok=True)
        stop, network = threading.Event(), NumpyNetwork()
        real, count = network.step, iter(range(1, 100))

        def step(*arguments, real=real, count=count, stop=stop, stopped=stopped):
            if next(count) == stopped:
                stop.set()
            return real(*arguments)

        network.step = step
        with CheckpointWriter(path, 1e9) as writer, pytest.raises(StoppedError):
            loop(PLAN, network, stop=stop, writer=writer)[0].run()
        second = NumpyNetwork()
        made, news = loop(PLAN, second, tmp_path)
        found = made.run(read_checkpoint(path, "key"))
        assert without_time(found) == without_time(history)
        assert (second.kernel == wanted.kernel).all()
        steps = sum(call[0] == "step" for call in second.calls)
        assert steps == 16 - stopped
        done = stopped // 4 if stopped % 4 else stopped // 4 - 1
        told = [item["event"] for item in news if item["event"] != "alive"]
        assert news[0]["done"] == done and told[1] == ("epoch" if done else told[1])


def test_a_finished_training_is_not_trained_again(tmp_path):
    first = NumpyNetwork()
    with CheckpointWriter(tmp_path / "checkpoint.npz", 0.0) as writer:
        history = loop(PLAN, first, writer=writer)[0].run()
    second = NumpyNetwork()
    found = loop(PLAN, second)[0].run(read_checkpoint(tmp_path / "checkpoint.npz", "key"))
    steps = sum(call[0] == "step" for call in second.calls)
    assert steps < 16 and without_time(found) == without_time(history)
    assert (second.kernel == first.kernel).all()


def test_checkpoints_that_do_not_fit_are_ignored(tmp_path):
    with CheckpointWriter(tmp_path / "checkpoint.npz", 0.0) as writer:
        loop(PLAN, NumpyNetwork(), writer=writer)[0].run()
    checkpoint = read_checkpoint(tmp_path / "checkpoint.npz", "key")
    other = NumpyNetwork(classes=3)
    with pytest.raises((ValueError, IndexError)):
        other.set_state({"weights": checkpoint.arrays["now/weights"]})
    wanted = NumpyNetwork(classes=2)
    history = loop(PLAN, wanted)[0].run()
    for spoil in (
        lambda c: c.numbers.pop("history"),
        lambda c: c.numbers["position"].update(depth=3),
        lambda c: c.arrays.pop("now/velocity"),
        lambda c: c.arrays.update({"best/kernel": np.zeros((2, 2), np.float32)}),
    ):
        spoilt = read_checkpoint(tmp_path / "checkpoint.npz", "key")
        spoil(spoilt)
        network = NumpyNetwork()
        assert without_time(loop(PLAN, network)[0].run(spoilt)) == without_time(history)
        assert (network.kernel == wanted.kernel).all()


CHILD = """
import json, os, signal, sys, threading
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_loop import PLAN, Loop, CheckpointWriter, training_data, read_checkpoint, NumpyNetwork
path, stop = Path(sys.argv[1]), int(sys.argv[2])
count = 0

def note():
    global count
    count += 1
    if count == stop:
        os.kill(os.getpid(), signal.SIGKILL)

def watch(event, arguments):
    name = str(arguments[0]) if arguments else ""
    if event in ("os.rename", "os.remove", "open") and ".npz" in name:
        note()

network = NumpyNetwork()
real = network.step

def step(*arguments):
    note()
    return real(*arguments)

network.step = step
sys.addaudithook(watch)
with CheckpointWriter(path, 0.0) as writer:
    loop = Loop(
        PLAN, training_data(), network, seed=3, key="key", writer=writer, send=lambda news: None,
        stop=threading.Event(), workers=2,
    )
    history = loop.run(read_checkpoint(path, "key"))
rows = [row.cells()[:2] + row.cells()[3:] for row in history]
print(json.dumps([count, rows, network.kernel.tobytes().hex()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_killed_at_random_moments_the_training_ends_the_same(tmp_path):
    def start(path, stop=0):
        code = CHILD.format(tests=str(Path(__file__).parent))
        return subprocess.run(
            [sys.executable, "-c", code, str(path), str(stop)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    first = start(tmp_path / "undisturbed.npz")
    assert first.returncode == 0, first.stderr
    events, history, weights = json.loads(first.stdout)
    draw, killed, path = random.Random(0), 0, tmp_path / "killed.npz"
    for turn in range(7):
        done = start(path, draw.randint(4, max(8, events // 3)) if turn < 6 else 0)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
    assert killed >= 2 and done.returncode == 0
    assert json.loads(done.stdout)[1:] == [history, weights]


def test_validation_images_are_never_augmented(monkeypatch):
    data, judged = training_data(), []
    network = NumpyNetwork()
    judge = network.evaluate
    monkeypatch.setattr(
        network, "evaluate", lambda pixels, targets: judged.append(pixels) or judge(pixels, targets)
    )
    strong = Augment(rotation=90, noise=40, brightness=0.5, mixup=0.5)
    loop(Plan((Phase("only", 2, 8, "sgd", 0.5, augment=strong),)), network, data=data)[0].run()
    assert len(judged) == 2
    assert all((pixels == data.inputs[data.val_rows]).all() for pixels in judged)


def test_at_the_deadline_the_current_epoch_is_validated(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kindsight.training.engine.loop.time.monotonic", lambda: now[0])

    class Slow(NumpyNetwork):
        def step(self, *given):
            now[0] += 1
            return super().step(*given)

    network = Slow()
    history = loop(PLAN, network)[0].run(deadline=6.5)
    # Four steps an epoch: the second one ends with its third step.
    assert sum(call[0] == "step" for call in network.calls) == 7
    assert [(row.epoch, row.val_loss is None) for row in history] == [(1, False), (2, False)]
    other = Slow()
    assert len(loop(PLAN, other)[0].run(deadline=now[0] - 1)) == 0 and not other.calls
