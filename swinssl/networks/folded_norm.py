"""Batch norm folded into the convolution before it: in prediction both are linear, and a pass over memory is saved."""

from __future__ import annotations

import copy
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from swinssl.networks.normalisation import BatchNorm
from swinssl.networks.segmentor import SwinSegmentor


def with_folded_norms(network: nn.Module) -> nn.Module:
    """A copy for prediction whose convolutions have taken in the batch norms that follow them.

    Args:
        network: in evaluation mode; anything but our own segmentor, or one without batch norm, is returned as it is.
    """
    has_batch_norm = any(isinstance(module, BatchNorm) for module in network.modules())
    if not isinstance(network, SwinSegmentor) or not has_batch_norm:
        return network
    # The encoder has no batch norm: both share it.
    folded = copy.deepcopy(network, {id(network.encoder): network.encoder})
    for parent in list(folded.modules()):
        for (_, convolution), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv3d) and isinstance(norm, BatchNorm):
                _fold(convolution, norm)
                setattr(parent, name, nn.Identity())
    return folded


def _fold(convolution: nn.Conv3d, norm: BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    convolution.weight, convolution.bias = weight, bias
