"""Features per second: ours against the plain transformers loop, on the same samples.

The peer is what anyone would write: the processor on a batch in pool order, padded, the whole model's forward with
hidden states, a mean over the tokens of the last one. Same backbone, weights, dtype and batch size; both read the
same encoded pictures. Runs alternate in one process, both with the allocator settings of `emt` (they help both).

    python bench/embed.py --pool runs/quickstart/pool --rows 384
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from embodied_midtrain.allocation import keep_large_blocks
from embodied_midtrain.artifacts import Skips
from embodied_midtrain.backbones.backbone import Backbone
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import autocast, pick_precision, quick_inference
from embodied_midtrain.backbones.regions import percent
from embodied_midtrain.backbones.rendering import messages_of
from embodied_midtrain.features.extractor import EmbedConfig, encode
from embodied_midtrain.samples import Sample
from embodied_midtrain.sources.opening import open_pool


def plain_loop(backbone: Backbone, samples: list[Sample], batch_size: int) -> np.ndarray:
    """The peer: [rows, hidden]."""
    model, processor = backbone.model, backbone.processor
    processor.tokenizer.padding_side = "right"
    rows = []
    for at in range(0, len(samples), batch_size):
        chosen = samples[at : at + batch_size]
        texts = []
        for sample in chosen:
            messages = messages_of([(t.role, t.written(percent)) for t in sample.turns], len(sample.pictures))
            # One line end after the last answer belongs to the template; ours leaves it out too.
            texts.append(processor.apply_chat_template(messages, tokenize=False).rstrip("\n"))
        images = [picture.decode() for sample in chosen for picture in sample.pictures]
        batch = processor(text=texts, images=images, padding=True, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode(), autocast(backbone.device, "auto"):
            last = model(**batch, output_hidden_states=True).hidden_states[-1].float()
        mask = batch["attention_mask"].unsqueeze(-1)
        rows.append(((last * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(rows)


def ours(backbone: Backbone, samples: list[Sample], config: EmbedConfig) -> np.ndarray:
    """What `emt embed` does in memory: parts, the next one decoded while this one computes."""
    parts = [samples[at : at + config.part_size] for at in range(0, len(samples), config.part_size)]
    rows = []
    quick = quick_inference(backbone.base, backbone.device, config.precision)
    with quick, ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(backbone.render, s) for s in parts[0]]
        for number in range(len(parts)):
            ready = [future.result() for future in waiting]
            if number + 1 < len(parts):
                waiting = [threads.submit(backbone.render, s) for s in parts[number + 1]]
            rows.append(encode(backbone, ready, config))
    return np.concatenate(rows)


def floor(backbone: Backbone, tokens: int, dtype: torch.dtype) -> float:
    """Seconds that the language model's multiplications alone take at the matrix product's measured rate."""
    weights = sum(p.numel() for n, p in backbone.language.named_parameters() if p.ndim == 2 and "embed" not in n)
    a, b = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    rate = 2 * 2048**3 / min(times)
    return 2 * weights * tokens / rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, default=Path("runs/quickstart/pool"))
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--rows", type=int, default=384)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    keep_large_blocks()
    samples = list(open_pool(args.pool, skips=Skips()))
    # Every n-th sample, but neighbours kept together: questions about one picture stand side by side in a pool.
    groups = [samples[at : at + 16] for at in range(0, len(samples), 16)]
    step = max(1, len(samples) // args.rows)
    samples = [s for group in groups[::step] for s in group if s.pictures][: args.rows]
    backbone = load_backbone(args.backbone)
    config = EmbedConfig(batch_size=args.batch)
    ready = [backbone.render(sample) for sample in samples]
    tokens = sum(len(row.ids) for row in ready)
    dtype = pick_precision("auto", backbone.device)
    print(f"{len(samples)} samples, {tokens} tokens, {args.backbone}, {dtype}, batch {args.batch}")

    mine, theirs = [], []
    for _ in range(args.repeats + 1):
        started = time.perf_counter()
        first = ours(backbone, samples, config)
        mine.append(time.perf_counter() - started)
        started = time.perf_counter()
        second = plain_loop(backbone, samples, args.batch)
        theirs.append(time.perf_counter() - started)
    # The first round warms caches and is not counted.
    a, b = statistics.median(mine[1:]), statistics.median(theirs[1:])
    error = np.linalg.norm(first.astype(np.float32) - second, axis=1) / np.linalg.norm(second, axis=1)
    print(f"ours   {len(samples) / a:8.1f} features/s   (median of {args.repeats}: {a:.2f} s)")
    print(f"peer   {len(samples) / b:8.1f} features/s   (median of {args.repeats}: {b:.2f} s)")
    print(f"ratio  {b / a:8.2f}")
    print(f"floor  {len(samples) / floor(backbone, tokens, dtype):8.1f} features/s   (language model's products alone)")
    print(f"relative error of a feature: median {np.median(error):.2e}, largest {error.max():.2e}")


if __name__ == "__main__":
    main()
