import torch
import torch.nn.functional as F
from torch import nn

from embodied_midtrain.backbones.compact.lite2 import LiteConfig, LiteTower, SameConv, fold


class Reference(nn.Module):
    """The network as it is published: convolutions without bias, each with its batch norm, TensorFlow's padding."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, config.stem, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(config.stem, eps=1e-3)
        self._blocks = nn.ModuleList()
        width = config.stem
        self.ends = []
        for repeats, kernel, stride, expansion, out in config.stages:
            for n in range(repeats):
                block, wide = nn.Module(), width * expansion
                if expansion != 1:
                    block._expand_conv, block._bn0 = nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide, 1e-3)
                block._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride if n == 0 else 1, groups=wide, bias=False)
                block._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
                block._project_conv, block._bn2 = nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out, eps=1e-3)
                block.skip = n > 0
                self._blocks.append(block)
                width = out
            self.ends.append(len(self._blocks) - 1)
        self._conv_head, self._bn1 = nn.Conv2d(width, 24, 1, bias=False), nn.BatchNorm2d(24, eps=1e-3)

    @staticmethod
    def same(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        pad = max((-(-x.shape[-1] // conv.stride[0]) - 1) * conv.stride[0] + conv.kernel_size[0] - x.shape[-1], 0)
        return conv(F.pad(x, [pad // 2, pad - pad // 2] * 2))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = F.relu6(self._bn0(self.same(self._conv_stem, x)))
        found = []
        for n, block in enumerate(self._blocks):
            y = F.relu6(block._bn0(block._expand_conv(x))) if hasattr(block, "_expand_conv") else x
            y = F.relu6(block._bn1(self.same(block._depthwise_conv, y)))
            y = block._bn2(block._project_conv(y))
            x = x + y if block.skip else y
            if n in self.ends:
                found.append(x)
        return [*found, F.relu6(self._bn1(self._conv_head(x)))]


def test_folded_norms_change_nothing() -> None:
    torch.manual_seed(0)
    config = LiteConfig(
        stem=8, stages=[[1, 3, 1, 1, 6], [2, 5, 2, 4, 12], [2, 3, 2, 4, 16]], detail_stage=1, image_size=44
    )
    reference = Reference(config).eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2.0)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor)
    state, (head, head_bias) = fold(reference.state_dict(), config)
    tower = LiteTower(config)
    tower.load_state_dict(state)
    pixels = torch.randint(0, 256, (2, 3, 44, 44), dtype=torch.uint8)
    with torch.no_grad():
        cells = tower(pixels)
        *stages, top = reference((pixels.float() - 127) / 128)
    assert cells.shape == (2, config.grid**2, config.width) == (2, 36, 16 + 4 * 12)
    last = stages[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(cells[..., :16], last, rtol=1e-3, atol=1e-4)
    detail = F.pixel_unshuffle(F.pad(stages[1], (0, 1, 0, 1)), 2).flatten(2).transpose(1, 2)
    torch.testing.assert_close(cells[..., 16:], detail, rtol=1e-3, atol=1e-4)
    ours = F.relu6(last @ head.T + head_bias)
    torch.testing.assert_close(ours, top.flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-4)


def test_uneven_padding_goes_to_the_right() -> None:
    conv = SameConv(1, 1, 3, 2)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.zero_()
        out = conv(torch.ones(1, 1, 4, 4))
    # Padding (0, 1): the last window hangs over the right edge, the first over none.
    assert out[0, 0].tolist() == [[9.0, 6.0], [6.0, 4.0]]


def test_default_sizes_are_lite2s() -> None:
    config = LiteConfig()
    assert (config.grid, config.top_width, config.width) == (7, 352, 352 + 480)
    # 6.1 million with the ImageNet head and classifier, of which the head is 0.45 and the classifier 1.28.
    assert 4.2e6 < sum(p.numel() for p in LiteTower(config).parameters()) < 4.4e6
