from __future__ import annotations

from kindsight.training.engine.callbacks import CallbackList, TrainingCallback, notify_monitor
from kindsight.training.engine.history import EpochRow


class Noting:
    def __init__(self, name: str, news: list[tuple]) -> None:
        self.name, self.news = name, news

    def on_start(self, epochs, done):
        self.news.append((self.name, "start", epochs, done))

    def on_step(self, *where):
        self.news.append((self.name, *where))

    def on_epoch(self, row):
        self.news.append((self.name, "epoch", row))


class Ranking(Noting):
    def on_monitor(self, monitor):
        self.news.append((self.name, monitor))


def test_callbacks_are_called_in_order():
    news: list[tuple] = []
    both: TrainingCallback = CallbackList(Noting("a", news), Noting("b", news))
    row = EpochRow(1, "train", 1.0, 0.1, 0.5, 0.5)
    both.on_start(3, 0)
    both.on_step("train", 1, 2, 10, 0.7, 0.5, 99.0)
    both.on_epoch(row)
    assert news == [
        ("a", "start", 3, 0),
        ("b", "start", 3, 0),
        ("a", "train", 1, 2, 10, 0.7, 0.5, 99.0),
        ("b", "train", 1, 2, 10, 0.7, 0.5, 99.0),
        ("a", "epoch", row),
        ("b", "epoch", row),
    ]


def test_on_monitor_is_optional():
    news: list[tuple] = []
    notify_monitor(CallbackList(Noting("a", news), Ranking("b", news), Ranking("c", news)), "loss")
    notify_monitor(None, "loss")
    assert news == [("b", "loss"), ("c", "loss")]
