import math

import pytest
import torch
from torch import nn

from embodied_midtrain.policies.heads import TwoBranchHead, action_loss


def test_shapes_and_layers_are_those_of_vlm4vla():
    head = TwoBranchHead(576, chunk=10, arm=6, gripper=True)
    arm, logits = head(torch.randn(3, 576) * 10)
    assert arm.shape == (3, 10, 6) and logits.shape == (3, 10)
    assert arm.abs().max() <= 1.0

    def sizes(branch):
        return [(m.in_features, m.out_features) for m in branch.modules() if isinstance(m, nn.Linear)]

    assert sizes(head.trunk) == [(576, 288), (288, 1024)]
    assert sizes(head.arm) == [(1024, 1024), (1024, 512), (512, 256), (256, 60)]
    assert sizes(head.gripper) == [(1024, 1024), (1024, 512), (512, 256), (256, 10)]


def test_weights_start_by_xavier():
    head = TwoBranchHead(512, chunk=4, arm=3, gripper=True)
    layer = head.arm[0]
    bound = math.sqrt(6 / (layer.in_features + layer.out_features))
    assert 0.98 * bound < layer.weight.abs().max() <= bound
    assert layer.bias.abs().max() == 0


def test_a_robot_without_gripper():
    arm, logits = TwoBranchHead(16, chunk=2, arm=4, gripper=False, widths=(8, 8))(torch.randn(5, 16))
    assert arm.shape == (5, 2, 4) and logits is None
    assert action_loss(arm, None, arm.detach(), None).item() == 0.0


def test_loss_by_hand():
    arm = torch.tensor([[[0.5, -1.0], [0.0, 3.0]]])
    goal = torch.zeros(1, 2, 2)
    logits, closed = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    # Huber with delta 1: half the square below 1, |x| - 0.5 from there on.
    huber = (0.125 + 0.5 + 0.0 + 2.5) / 4
    entropy = (math.log(2) + math.log(1 + math.exp(2))) / 2
    assert action_loss(arm, logits, goal, closed).item() == pytest.approx(huber + 0.01 * entropy)
    squared = (0.25 + 1.0 + 0.0 + 9.0) / 4
    loss = action_loss(arm, logits, goal, closed, arm_loss="squared", gripper_weight=1.0)
    assert loss.item() == pytest.approx(squared + entropy)
    absolute = action_loss(arm, logits, goal, closed, arm_loss="absolute", gripper_weight=0.0)
    assert absolute.item() == pytest.approx((0.5 + 1.0 + 0.0 + 3.0) / 4)
