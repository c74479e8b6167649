"""From what a network is told to be to how it is trained."""

from __future__ import annotations

from kindsight.models.forward import Forward, KerasForward
from kindsight.models.small_cnn import SmallCNN, build_small_cnn
from kindsight.models.small_forward import SmallCNNForward
from kindsight.models.transfer import TransferNetwork
from kindsight.models.transfer_forward import TransferForward

__all__ = ["make_forward"]


def make_forward(
    network: SmallCNN | TransferNetwork | Forward,
    classes: int,
    seed: int,
    precision: str = "float32",
) -> Forward:
    """Build a network, and return the fastest way to train it.

    Parameters
    ----------
    network : SmallCNN, TransferNetwork or Forward
        One that is built is returned as it is.
    classes : int
        2 or more.
    seed : int
        For the weights that are drawn.
    precision : str
        ``"float32"`` or ``"bfloat16"``: of convolutions in steps.
    """
    if isinstance(network, TransferNetwork):
        return TransferForward(network, classes, seed, precision)
    if not isinstance(network, SmallCNN):
        return network
    model = build_small_cnn(network, classes, seed)
    # Batch normalisation is over the whole batch, and may turn a maximum into a minimum.
    if network.batch_norm:
        return KerasForward(model, lambda name: network.l2)
    return SmallCNNForward(network, model, precision)
