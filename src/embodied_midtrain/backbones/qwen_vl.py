"""Qwen2.5-VL and Qwen3-VL: pictures of any size, positions in three dimensions, and (3) features for early layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from embodied_midtrain.backbones.family import Family, flat, refuse_mismatch
from embodied_midtrain.backbones.regions import pixels as in_pixels
from embodied_midtrain.backbones.regions import thousandths
from embodied_midtrain.samples import BadSample, Region


class QwenVL(Family):
    """What both have in common.

    The picture keeps its form and about its size, in steps of two patches, between the least pixels of its processor
    and the tokens that are allowed. Image tokens have a position for time, height and width; text goes on after the
    largest of them.
    """

    def connector(self, base: Any) -> list[nn.Module]:
        return [base.model.visual.merger]

    def limit(self, processor: Any, tokens: int) -> bool:
        images = processor.image_processor
        most = tokens * _step(processor) ** 2
        images.size = {"shortest_edge": min(_pixels(processor)[0], most), "longest_edge": most}
        return True

    def identity(self, processor: Any) -> str:
        return f"{_pixels(processor)} {_step(processor)}"

    def tokens(self, processor: Any, text: str, pictures: Sequence[Image.Image]) -> tuple[list[int], dict[str, Tensor]]:
        for picture in pictures:
            _resized(processor, picture.size)
        return super().tokens(processor, text, pictures)

    def extras(self, base: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`rope_positions` [3, batch, tokens]; in a packed row they start again at each sample."""
        ids, places = batch["input_ids"], batch.get("position_ids")
        kinds, grids = _kinds(base, ids), batch.get("image_grid_thw")
        seen = 0 if grids is None else int(grids.prod(1).sum()) // base.model.visual.spatial_merge_size**2
        refuse_mismatch(int(kinds.sum()), seen)
        rope, _ = base.model.get_rope_index(
            ids,
            mm_token_type_ids=kinds,
            image_grid_thw=grids,
            attention_mask=batch.get("attention_mask"),
        )
        if places is not None:
            starts = (places == 0).long() * torch.arange(places.shape[1], device=places.device)
            first = starts.cummax(1).values
            rope = rope - rope.gather(2, first[None].expand_as(rope))
        return {"rope_positions": rope}

    def own(self, base: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**super().own(base, batch), "mm_token_type_ids": _kinds(base, batch["input_ids"])}

    def features(self, base: Any, pixels: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        out = base.get_image_features(**pixels)
        return flat(out.pooler_output), [flat(level) for level in getattr(out, "deepstack_features", [])]

    def reading(self, base: Any, embedded: Tensor, batch: Mapping[str, Tensor], deep: list[Tensor]) -> dict[str, Any]:
        given = batch if "rope_positions" in batch else {**batch, **self.extras(base, batch)}
        text = batch.get("position_ids")
        if text is None:
            text = torch.arange(embedded.shape[1], device=embedded.device).expand(len(embedded), -1)
        # transformers tells the samples of a packed row apart by the first of the four.
        places = torch.cat([text[None], given["rope_positions"]])
        reading: dict[str, Any] = {"attention_mask": batch.get("attention_mask"), "position_ids": places}
        if deep:
            reading["visual_pos_masks"] = batch["input_ids"] == base.config.image_token_id
            reading["deepstack_visual_embeds"] = deep
        return reading


class Qwen25VL(QwenVL):
    def place(self, processor: Any, region: Region, size: tuple[int, int] | None) -> str:
        """Whole pixels of the picture as the model gets it, resized (Qwen2.5-VL's report, "absolute coordinates";
        QwenLM/Qwen3-VL, issue 931)."""
        if size is None:
            raise BadSample("bad geometry", "a region without a picture: this model counts places in pixels")
        return in_pixels(region, _resized(processor, size))


class Qwen3VL(QwenVL):
    def connector(self, base: Any) -> list[nn.Module]:
        return [base.model.visual.merger, base.model.visual.deepstack_merger_list]

    def place(self, processor: Any, region: Region, size: tuple[int, int] | None) -> str:
        """Thousandths of the picture's sides (Qwen3-VL's cookbooks, "spatial understanding")."""
        return thousandths(region)


def _kinds(base: Any, ids: Tensor) -> Tensor:
    """1 at image tokens."""
    return (ids == base.config.image_token_id).int()


def _step(processor: Any) -> int:
    """Pixels along one side of an image token."""
    return int(processor.image_processor.patch_size * processor.image_processor.merge_size)


def _pixels(processor: Any) -> tuple[int, int]:
    """The least and the most of a picture."""
    size = processor.image_processor.size
    return int(size["shortest_edge"]), int(size["longest_edge"])


def _resized(processor: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture as the model gets it.

    Raises:
        BadSample: where one side is more than 200 times the other.
    """
    least, most = _pixels(processor)
    try:
        high, wide = smart_resize(size[1], size[0], factor=_step(processor), min_pixels=least, max_pixels=most)
    except ValueError as error:
        raise BadSample("unusual image", str(error)) from error
    return wide, high
