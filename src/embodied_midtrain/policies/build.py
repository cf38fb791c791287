"""A policy's trained parts with new weights, by its shape."""

from __future__ import annotations

from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.episodes import ActionSpec
from embodied_midtrain.policies.fast import FastTokenizer
from embodied_midtrain.policies.flow import FlowNet
from embodied_midtrain.policies.net import Net
from embodied_midtrain.policies.parallel import ParallelNet
from embodied_midtrain.policies.query import QueryNet
from embodied_midtrain.policies.reading import ReaderFlowNet, ReaderParallelNet, ReaderQueryNet
from embodied_midtrain.policies.shape import PolicyShape
from embodied_midtrain.policies.tokens import ActionTokens, FastNet


def build_net(shape: PolicyShape, spec: ActionSpec, backbone: Backbone, fast: FastTokenizer | None = None) -> Net:
    """The net of that shape, its weights from torch's global generator.

    Args:
        fast: needed where `shape.speaks`.

    Raises:
        StageError: where the backbone has no room for the tokens.
    """
    if shape.mode == "frozen":
        assert shape.head != "fast", "a frozen language model says no actions"
        if shape.head == "flow":
            return ReaderFlowNet(shape, spec)
        return ReaderParallelNet(shape, spec) if shape.head == "parallel" else ReaderQueryNet(shape, spec)
    tokens = None
    if shape.speaks:
        assert fast is not None, "this kind of policy needs its action tokens"
        tokens = ActionTokens(backbone, fast)
    if shape.head == "flow":
        return FlowNet(shape, spec, tokens)
    if shape.head == "fast":
        assert tokens is not None
        return FastNet(spec, tokens)
    return ParallelNet(shape, spec) if shape.head == "parallel" else QueryNet(shape, spec)
