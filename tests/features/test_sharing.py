"""Rows that share a picture, computed together, say what each says alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from embodied_midtrain.features.extractor import EmbedConfig, encode
from embodied_midtrain.features.sharing import LONGEST, share_prefixes, share_vision
from tests import tiny

QUESTIONS = ("What?", "Where is the small red thing, and how far?", "How many are there?")


@pytest.fixture(scope="module")
def rows():
    backbone = tiny.backbone("compact")
    pictures = [Image.new("RGB", (24, 20), (40 * n, 255 - 40 * n, 9)) for n in range(4)]
    shown = [pictures[0]] * 3 + [pictures[1]] + [pictures[2]] * 2 + [None] + [pictures[0]]
    return backbone, [backbone.prompt(p, QUESTIONS[n % 3]) for n, p in enumerate(shown)]


@pytest.mark.parametrize("pooling", ["mean", "last", "image", "text", "prompt"])
@pytest.mark.parametrize("layer", [-1, 2])
def test_together_as_alone(rows, pooling, layer):
    backbone, ready = rows
    ready = ready[:6] + ready[7:] if pooling == "image" else ready
    config = EmbedConfig(pooling=pooling, layer=layer, batch_size=3, precision="fp32")
    alone = np.concatenate([encode(backbone, [row], config) for row in ready])
    assert encode(backbone, ready, config) == pytest.approx(alone, abs=2e-3)


def test_one_prefix_for_each_picture(rows):
    backbone, ready = rows
    shared = share_prefixes(share_vision(backbone, ready, 4), backbone.image_token_id)
    assert [[n for n, _, _ in one.members] for one in shared] == [[0, 1, 2, 7], [3], [4, 5], [6]]
    one = shared[0]
    for number, start, end in one.members:
        assert one.row.ids[: one.prefix] + one.row.ids[start:end] == ready[number].ids
    assert sum(len(s.row) for s in shared) < sum(len(row) for row in ready)


def test_a_joined_row_stays_short(rows):
    backbone, ready = rows
    many = share_prefixes(share_vision(backbone, [ready[1]] * 40, 4), backbone.image_token_id)
    assert len(many) > 1 and all(len(one.row) <= LONGEST for one in many)
    assert [n for one in many for n, _, _ in one.members] == list(range(40))


def test_what_is_said_after_one_question_is_not_seen_by_another(rows):
    backbone, ready = rows
    config = EmbedConfig(pooling="last", precision="fp32")
    other = backbone.prompt(Image.new("RGB", (24, 20), (0, 255, 9)), "Something else altogether!")
    first, second = encode(backbone, [ready[0], ready[1]], config), encode(backbone, [other, ready[1]], config)
    assert not np.array_equal(first[0], second[0]) and torch.isfinite(torch.from_numpy(first)).all()
    assert second[1] == pytest.approx(first[1], abs=1e-3)
