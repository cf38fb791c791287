"""Which arithmetic a forward pass uses, in one place for extraction, training and policies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

Precision = Literal["auto", "bf16", "fp32"]


def pick_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype that a setting means on this device; auto: bf16 where the processor multiplies it natively."""
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported()
        else:
            fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def autocast(device: torch.device, name: Precision) -> contextlib.AbstractContextManager[object]:
    """A context in which forward passes compute in that precision; weights keep theirs."""
    dtype = pick_precision(name, device)
    return torch.autocast(device.type, dtype) if dtype is torch.bfloat16 else contextlib.nullcontext()


def lighten(model: nn.Module, dtype: torch.dtype) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """Turn weights of linear and convolution layers to `dtype`, in place, once and for all forward passes.

    Under autocast to the same dtype the numbers stay what they were: it would turn these weights in each pass.

    Returns:
        What was turned, with its values from before.
    """
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    own = {id(p): p for m in layers for p in m.parameters(recurse=False) if id(p) not in embeddings}
    kept = [(parameter, parameter.data) for parameter in own.values()]
    for parameter, data in kept:
        parameter.data = data.to(dtype)
    return kept


@contextlib.contextmanager
def quick_inference(model: nn.Module, device: torch.device, name: Precision) -> Iterator[None]:
    """`autocast` for much inference in a row: weights are turned once (`lighten`) and put back afterwards."""
    dtype = pick_precision(name, device)
    kept = lighten(model, dtype) if dtype is torch.bfloat16 else []
    try:
        with autocast(device, name):
            yield
    finally:
        for parameter, data in kept:
            parameter.data = data


def cast(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a model and turn its weights to a dtype, in place, as loading it in that dtype would.

    What a model computes for itself, such as rotary frequencies, stays in full precision; `Module.to(dtype)` rounds it
    too, and the model then says something else than the same weights loaded from a file.
    """
    model.to(device)
    saved = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for tensor in saved.values():
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
