"""The parameters that an optimizer gets: in one list, or in groups of their own learning rate and weight decay."""

from typing import Any

from torch import nn

from segtrain.errors import UserError


def encoder_of(network: nn.Module, key: str) -> nn.Module:
    """Return the part of a network that its class calls its encoder.

    Raises:
        UserError: If it calls none so; names the key that needs it.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise UserError(f"{key} needs to know the encoder of the network, but {type(network).__name__} has no module "
                        f"named encoder: leave out {key}, or name that part of your class encoder.")
    return encoder


def grouped(
    network: nn.Module, *, freeze_encoder: bool, encoder_lr: float | None, decay_kernels_only: bool
) -> list[Any]:
    """Return the parameters to train, as the first argument of an optimizer.

    Args:
        network: Its `encoder` is the part that the next two are about.
        freeze_encoder: Leave out the encoder's parameters.
        encoder_lr: The encoder's learning rate; None: the optimizer's.
        decay_kernels_only: Put parameters of one dimension (biases, scales and shifts of normalisations, slopes of
            PReLU) into groups without weight decay.

    Returns:
        A plain list of all, if nothing is asked for. Otherwise groups, that of the optimizer's own learning rate first.

    Raises:
        UserError: If the network has no encoder, but one is asked for, or nothing is left to train.
    """
    encoder: set[nn.Parameter] = set()
    if freeze_encoder:
        encoder = set(encoder_of(network, "train.freeze_encoder").parameters())
    elif encoder_lr is not None:
        encoder = set(encoder_of(network, "train.encoder_lr").parameters())
    trained = [each for each in network.parameters() if each.requires_grad and not (freeze_encoder and each in encoder)]
    if not trained:
        raise UserError(f"{type(network).__name__} has no parameter to train"
                        f"{' outside its encoder: leave out train.freeze_encoder' if freeze_encoder else ''}.")
    if encoder_lr is None and not decay_kernels_only:
        return trained
    groups = []
    for in_encoder in (False, True):
        for decays in (True, False):
            members = [each for each in trained
                       if (each in encoder) == in_encoder and (each.ndim > 1 or not decay_kernels_only) == decays]
            if members:
                groups.append({"params": members, **({"lr": encoder_lr} if in_encoder else {}),
                               **({} if decays else {"weight_decay": 0.0})})
    return groups
