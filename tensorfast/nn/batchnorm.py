"""BatchNorm around decomposed layers: statistics taken anew, or folded into the convolution before.

A decomposition of low rank changes mean and spread of what a layer gives back; the running
statistics of a BatchNorm after it are then those of another network.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .layers import CONVOLUTIONS
from .watch import batches_of, evaluating

__all__ = ["fold_batchnorm", "recalibrate_batchnorm"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def recalibrate_batchnorm(model: nn.Module, batches: Any) -> nn.Module:
    """Take the running statistics of every BatchNorm anew, over batches of inputs.

    Parameters
    ----------
    model : nn.Module
        Changed in place: running means, variances and counts, and nothing else.
    batches : Tensor, tuple or iterable of them
        Inputs; a tuple are the arguments of one call. Each counts the same.

    Returns
    -------
    nn.Module
        ``model``.

    Raises
    ------
    ValueError
        If there is no batch, or ``model`` has no BatchNorm with running statistics.

    Notes
    -----
    All others modules run as when they are used: unlike `torch.optim.swa_utils.update_bn`, which
    trains the whole model, dropout stays off.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    >>> x = torch.arange(12.0).view(4, 3)
    >>> out = recalibrate_batchnorm(model, x).eval()(x)
    >>> bool((out.mean(0).abs() < 1e-6).all())
    True
    """
    op = "recalibrate_batchnorm"
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.track_running_stats]
    if not norms:
        raise ValueError(f"{op}: model has no BatchNorm with running statistics; nothing to do")
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                # None is the mean over all batches.
                norm.momentum, norm.training = None, True
            for call in batches_of(op, batches):
                model(*call)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return model


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """Fold each BatchNorm into the convolution or linear layer whose output only it takes.

    Parameters
    ----------
    model : nn.Module
        That `torch.fx` can trace. Not modified.

    Returns
    -------
    nn.Module
        A copy in evaluation mode: convolutions with other weights, `nn.Identity` for each BatchNorm
        that is gone. To be decomposed, but not trained, like this.

    Raises
    ------
    ValueError
        If ``model`` cannot be traced.

    Notes
    -----
    A rank is then chosen for what the network computes: channels that BatchNorm scales up weigh
    more.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3))
    >>> type(fold_batchnorm(model)[1]).__name__
    'Identity'
    """
    folded = copy.deepcopy(model).eval()
    try:
        graph = fx.Tracer().trace(folded)
    except Exception as error:
        raise ValueError(
            f"fold_batchnorm: torch.fx cannot trace {type(model).__name__} ({error}); fold its "
            "parts that it can"
        ) from error
    modules = dict(folded.named_modules())
    uses = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        if node.op != "call_module" or not isinstance(modules[node.target], NORMS):
            continue
        norm, before = modules[node.target], node.args[0]
        if before.op != "call_module" or len(before.users) > 1:
            continue
        layer = modules[before.target]
        once = uses.count(node.target) == uses.count(before.target) == 1
        if not once or not norm.track_running_stats:
            continue
        if isinstance(layer, CONVOLUTIONS):
            fused: nn.Module = fuse_conv_bn_eval(layer, norm)
        elif isinstance(layer, nn.Linear):
            fused = nn.utils.fusion.fuse_linear_bn_eval(layer, norm)
        else:
            continue
        _put(folded, before.target, fused)
        _put(folded, node.target, nn.Identity())
    return folded


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    model.set_submodule(name, module)
