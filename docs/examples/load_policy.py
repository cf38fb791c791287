"""Read an exported policy with torch, transformers and safetensors alone (modes "full" and "lora").

python docs/examples/load_policy.py exports/policy frame.png "open the drawer"
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor


class Head(nn.Module):
    """Linear(d, d/2), ReLU, Linear(d/2, w0); then w0-w1-...-out for the arm (tanh) and for the gripper (logits)."""

    def __init__(self, features, chunk, arm, gripper, widths):
        super().__init__()
        self.chunk = chunk
        self.trunk = nn.Sequential(nn.Linear(features, features // 2), nn.ReLU(), nn.Linear(features // 2, widths[0]))
        self.arm = self.branch(widths, chunk * arm)
        self.gripper = self.branch(widths, chunk) if gripper else None

    @staticmethod
    def branch(widths, out):
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(widths[-1], out))

    def forward(self, feature):
        shared = self.trunk(feature)
        arm = torch.tanh(self.arm(shared)).unflatten(-1, (self.chunk, -1))
        return arm, None if self.gripper is None else self.gripper(shared)


class Policy:
    def __init__(self, folder):
        folder = Path(folder)
        settings = json.loads((folder / "policy.json").read_text())
        self.shape, self.spec = settings["shape"], settings["spec"]
        self.range, self.preprocessor = settings["normaliser"], settings["preprocessor"]
        if self.shape["mode"] not in ("full", "lora"):
            raise SystemExit("this example reads policies with a query token: modes full and lora")
        self.model = AutoModelForImageTextToText.from_pretrained(folder / "backbone").eval()
        self.processor = AutoProcessor.from_pretrained(folder / "backbone")
        weights = load_file(folder / "head.safetensors")
        self.query = weights.pop("query")
        gripper = self.spec["gripper"] is not None
        arm = len(self.spec["names"]) - gripper
        self.head = Head(self.shape["hidden"], self.shape["chunk"], arm, gripper, self.shape["widths"])
        self.head.load_state_dict({name.removeprefix("head."): value for name, value in weights.items()})

    @torch.inference_mode()
    def act(self, image, instruction):
        """A PIL image and an instruction to actions [chunk, width] in the spec's units."""
        side = self.preprocessor["image"]
        image = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        text = self.preprocessor["template"].format(instruction=instruction)
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = self.processor(text=[prompt], images=[image], add_special_tokens=False, return_tensors="pt")
        ids = inputs.pop("input_ids")
        pixels = {
            k: v for k, v in inputs.items() if not k.endswith(("attention_mask", "token_type_ids")) or "pixel" in k
        }
        seen = self.model.get_image_features(**pixels).pooler_output
        seen = (torch.cat(list(seen)) if isinstance(seen, (tuple, list)) else seen).flatten(0, -2)
        embedded = self.model.get_input_embeddings()(ids)
        places = (ids == self.model.config.image_token_id)[..., None].expand_as(embedded)
        embedded = torch.cat([embedded.masked_scatter(places, seen.to(embedded.dtype)), self.query[None]], dim=1)
        inner = self.model.model
        language = inner.language_model if hasattr(inner, "language_model") else inner.text_model
        state = language(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, -1]
        arm, logits = self.head(state.float())
        return self.decode(arm[0], None if logits is None else logits[0])

    def decode(self, arm, logits):
        gripper, width = self.spec["gripper"], len(self.spec["names"])
        actions = torch.zeros(len(arm), width)
        actions[:, [n for n in range(width) if n != gripper]] = arm
        actions = actions * (self.range["limit"] or 1.0) * torch.tensor(self.range["half"]) + torch.tensor(
            self.range["middle"]
        )
        low, high = (
            torch.tensor([end if v is None else v for v in self.spec[name]])
            for name, end in (("low", -torch.inf), ("high", torch.inf))
        )
        if gripper is not None:
            shut, opened = (high, low) if self.spec["gripper_closed"] > 0 else (low, high)
            actions[:, gripper] = torch.where(logits > 0, shut[gripper], opened[gripper])
        return actions.clamp(low, high)


if __name__ == "__main__":
    folder, picture, instruction = sys.argv[1:]
    print(Policy(folder).act(Image.open(picture), instruction))
