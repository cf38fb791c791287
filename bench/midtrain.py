"""Mid-training: non-padding tokens a second, against Hugging Face's Trainer on the same samples.

    python bench/midtrain.py                                        made-up conversations, compact and a small Qwen3-VL
    python bench/midtrain.py --pool runs/quickstart/pool            half of the samples from a pool
    python bench/midtrain.py --backbones compact --samples 128 --repeats 5

The peer is `transformers.Trainer` as it is usually set up: rows padded on the right to the longest of the micro-batch,
in shuffled order, the fused AdamW, the same dtype, batch, micro-batch, learning parts and samples, which both get
rendered (texts as tokens, pictures as pixels). Runs alternate. Made-up conversations have one to six questions and
answers about a picture; their lengths are log-normal (median about 150 tokens, up to 900), as instruction data are.

Cases: "vision frozen" trains connector and language model; ours then computes the vision tower once a sample and keeps
its output where the backbone allows that (compact), which is not timed; the peer, too, does not train it. "all" trains
everything. The floor is the operations of `training.operations` over the measured rate of a matrix product.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from embodied_midtrain.artifacts import Skips, open_stage
from embodied_midtrain.backbones.backbone import Backbone, Rendered
from embodied_midtrain.backbones.compact.weights import cache_dir
from embodied_midtrain.backbones.opening import load_backbone
from embodied_midtrain.backbones.precision import autocast, pick_precision
from embodied_midtrain.backbones.processors import without_video
from embodied_midtrain.midtraining.costs import numbers, operations
from embodied_midtrain.midtraining.mixture import Mixture
from embodied_midtrain.midtraining.parts import chosen
from embodied_midtrain.midtraining.settings import MidtrainConfig
from embodied_midtrain.midtraining.teach import teach
from embodied_midtrain.samples import BadSample, Picture, Sample, Turn
from embodied_midtrain.sources.opening import open_pool
from embodied_midtrain.training import checkpoint
from embodied_midtrain.training.loop import train, train_mode
from embodied_midtrain.training.lora import let_learn
from embodied_midtrain.training.order import bucketed, draws
from embodied_midtrain.training.peak import matmul_rate
from embodied_midtrain.training.team import ALONE

Clock = Callable[[], float]
WORDS = tuple(
    "the red small cup stands left of on under table robot arm moves picks block and what where is".split()  # noqa: SIM905
)
QWEN_SPECIAL = ("vision_start", "vision_end", "image_pad", "video_pad")
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for p in m['content'] %}{% if p['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CASES = {"vision frozen": ("connector", "language"), "all": ("vision", "connector", "language")}


def conversations(backbone: Backbone, count: int, seed: int = 0) -> Iterator[Sample]:
    """Questions and answers whose texts have the same lengths, in tokens, under every backbone's tokenizer."""
    rng = np.random.default_rng(seed)
    tokens = len(backbone.processor.tokenizer(" ".join(WORDS))["input_ids"]) / len(WORDS)
    for n in range(count):
        pixels = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        words = int(np.clip(rng.lognormal(4.8, 0.8), 12, 850) / tokens)
        turns: list[Turn] = []
        asked = int(rng.integers(1, 7))
        for _ in range(asked):
            said = rng.choice(WORDS, max(4, words // asked)).tolist()
            cut = max(2, len(said) // 4)
            turns += [Turn("user", " ".join(said[:cut])), Turn("assistant", " ".join(said[cut:]))]
        yield Sample("talk", f"{n:05d}", (Picture(data=file.getvalue()),), tuple(turns))


def rendered(backbone: Backbone, samples: Iterator[Sample], count: int) -> list[Rendered]:
    rows: list[Rendered] = []
    for sample in samples:
        if len(rows) == count:
            break
        try:
            rows.append(backbone.render(sample))
        except BadSample:
            continue
    return rows


def mixed(backbone: Backbone, pool: str | None, count: int) -> list[Rendered]:
    """Made-up conversations; half of the samples from a pool, where one is given."""
    rows = []
    if pool:
        samples = list(open_pool(pool, skips=Skips()))
        order = np.random.default_rng(0).permutation(len(samples))
        rows = rendered(backbone, (samples[n] for n in order), count // 2)
    return rows + rendered(backbone, conversations(backbone, 4 * count), count - len(rows))


@dataclass
class Held:
    """Rows in memory, as `KeptRows` has them on disk."""

    rows: Sequence[Rendered]

    def row(self, index: int) -> Rendered:
        return self.rows[index]


def ours(backbone: Backbone, rows: Sequence[Rendered], config: MidtrainConfig, clock: Clock) -> tuple[float, float]:
    """Seconds of the steps, and the share of them spent waiting for data."""
    lengths = np.asarray([len(row) for row in rows], np.int64)
    learnt = np.asarray([sum(row.learnt[1:]) for row in rows], np.int64)
    keys = [("bench", str(n)) for n in range(len(rows))]
    order = draws(len(rows), config.steps * config.batch, config.seed)
    steps = bucketed(lengths, order, config.batch, config.seed)
    held: Any = Held(rows)
    mixture = Mixture(keys, keys, lengths, learnt, steps, held, range(len(rows)), {})
    times: list[float] = []

    def timed(*given: Any, **more: Any) -> list[float]:
        started = clock()
        losses = train(*given, **more)
        times.append(clock() - started)
        return losses

    with (
        tempfile.TemporaryDirectory() as folder,
        open_stage(Path(folder) / "out", "bench", config, {}) as run,
        # The checkpoint after the last step is not what is measured, and large.
        mock.patch.object(checkpoint, "save"),
        mock.patch("embodied_midtrain.midtraining.teach.train", timed),
    ):
        teach(run, backbone, mixture, lambda _: iter(()), config, ALONE, None)
        lines = [json.loads(line) for line in run.log("train.jsonl").read_text().splitlines()]
    return times[0], sum(line["seconds"] * line["idle"] for line in lines) / sum(line["seconds"] for line in lines)


def peer(backbone: Backbone, rows: Sequence[Rendered], config: MidtrainConfig, clock: Clock) -> float:
    """Seconds of Trainer's training loop."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    let_learn(backbone.base, chosen(backbone, config.train, 1.0), lora=False, rank=1, alpha=1, seed=0)
    train_mode(backbone.base)
    times: list[float] = []

    class Times(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            times.append(clock())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            times.append(clock())

    def collator(features: list[Rendered]) -> dict[str, Any]:
        batch = backbone.collate(features)
        return {**backbone.own_inputs(batch), "labels": batch["labels"]}

    half = pick_precision(config.precision, backbone.device) is torch.bfloat16
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=config.micro_batch,
            gradient_accumulation_steps=config.batch // config.micro_batch,
            max_steps=config.steps,
            learning_rate=config.lr,
            lr_scheduler_type="cosine",
            warmup_steps=0,
            bf16=half,
            use_cpu=backbone.device.type == "cpu",
            optim="adamw_torch_fused",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
            seed=config.seed,
        )
        trainer = Trainer(
            backbone.base, arguments, data_collator=collator, train_dataset=list(rows), callbacks=[Times()]
        )
        trainer.train()
    return times[1] - times[0]


def kept_vision(backbone: Backbone, rows: Sequence[Rendered], config: MidtrainConfig) -> list[Rendered]:
    """The rows with the frozen tower's output in place of pixels, in float16 as on disk."""
    made = []
    for row in rows:
        if not row.pixels:
            made.append(row)
            continue
        with autocast(backbone.device, config.precision):
            seen = backbone.vision({k: v for k, v in backbone.collate([row]).items() if k in row.pixels})
        made.append(replace(row, pixels={"vision": seen.half().float().cpu()}))
    return made


def padding(rows: Sequence[Rendered], config: MidtrainConfig) -> float:
    """Share of the peer's positions that are padding."""
    order = np.random.default_rng(config.seed).permutation(len(rows)).reshape(-1, config.micro_batch)
    lengths = np.asarray([len(row) for row in rows])
    return float(1 - lengths.sum() / sum(lengths[part].max() * len(part) for part in order))


def compare(
    backbone: Backbone, rows: Sequence[Rendered], config: MidtrainConfig, repeats: int, case: str, clock: Clock
) -> None:
    frozen = "vision" not in config.train
    fed = kept_vision(backbone, rows, config) if frozen and backbone.caches_vision else rows
    attention = backbone.base.config._attn_implementation
    found: dict[str, list[float]] = {"ours": [], "peer": []}
    idle: list[float] = []
    for repeat in range(repeats + 1):
        seconds, waited = ours(backbone, fed, config, clock)
        backbone.base.set_attn_implementation(attention)
        theirs = peer(backbone, rows, config, clock)
        # The first of each warms caches and threads up.
        if repeat:
            found["ours"].append(seconds)
            found["peer"].append(theirs)
            idle.append(waited)
    let_learn(backbone.base, chosen(backbone, config.train, 1.0), lora=False, rank=1, alpha=1, seed=0)
    example = next(row for row in fed if row.pixels)
    cost = operations(backbone, example)
    tokens = sum(len(row) for row in rows)
    learnt = sum(sum(row.learnt[1:]) for row in rows)
    needed = cost.of([len(row) for row in rows], learnt, sum(numbers(row) for row in fed))
    dtype = pick_precision(config.precision, backbone.device)
    floor = needed / matmul_rate(backbone.device, dtype, cache_dir() / "matmul.json")
    one, two = (statistics.median(values) for values in found.values())
    print(
        f"{backbone.name}, {case}, {'packed' if config.tokens_at_once(backbone.device) else 'padded by length'}: "
        f"{len(rows)} samples, {tokens} tokens ({learnt} learnt), {padding(rows, config):.0%} of the peer's positions "
        f"padding, {str(dtype).removeprefix('torch.')}, {torch.get_num_threads()} threads, median of {repeats}"
    )
    for name, seconds in (("ours", one), ("peer", two), ("floor", floor)):
        print(f"{name:<6}{tokens / seconds:10.0f} tokens/s {seconds:8.2f} s   {floor / seconds:6.1%} model-flops use")
    print(f"ratio {two / one:10.2f}   idle of ours {statistics.median(idle):.1%}\n", flush=True)


def small_qwen() -> Backbone:
    """A random Qwen3-VL of about 60 M weights; its head has the share of the language model that Qwen3-VL-2B's has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    special = ["<pad>", "<|im_start|>", "<|im_end|>", *(f"<|{name}|>" for name in QWEN_SPECIAL)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={t: n for n, t in enumerate([*special, *letters])}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<|im_end|>", additional_special_tokens=special[1:]
    )
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 64 * 64, "longest_edge": 224 * 224}, patch_size=16)
    processor = without_video(Qwen3VLProcessor)(images, tokenizer, None, chat_template=QWEN_TEMPLATE)
    rope = {"rope_type": "default", "mrope_section": [12, 10, 10], "mrope_interleaved": True, "rope_theta": 5e6}
    config = Qwen3VLConfig(
        vision_config={
            "depth": 6,
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_heads": 4,
            "out_hidden_size": 512,
            "patch_size": 16,
            "deepstack_visual_indexes": [1, 3, 5],
        },
        text_config={
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "vocab_size": 16384,
            "rope_parameters": rope,
        },
        tie_word_embeddings=True,
        image_token_id=special.index("<|image_pad|>"),
        video_token_id=special.index("<|video_pad|>"),
        vision_start_token_id=special.index("<|vision_start|>"),
        vision_end_token_id=special.index("<|vision_end|>"),
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
        processor.save_pretrained(folder)
        backbone = load_backbone(folder)
    backbone.name = "small Qwen3-VL"
    return backbone


def opened(name: str) -> Backbone:
    """A backbone, or the small one, in full precision."""
    backbone = small_qwen() if name == "qwen3-vl" else load_backbone(name)
    backbone.model.float()
    return backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["compact", "qwen3-vl"])
    parser.add_argument("--pool", help="half of the samples come from here")
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--packing", nargs="+", default=["off", "on"])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="of this process, for a machine that is busy")
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    print("seconds of processor time" if args.cpu_time else "seconds by the clock", flush=True)

    for name in args.backbones:
        backbone = opened(name)
        rows = mixed(backbone, args.pool, args.samples)
        for case in args.cases:
            for packing in args.packing:
                config = MidtrainConfig(
                    steps=args.samples // args.batch,
                    batch=args.batch,
                    micro_batch=args.micro_batch,
                    train=CASES[case],
                    lr=1e-6,
                    packing=packing,
                    save_seconds=1e9,
                )
                compare(backbone, rows, config, args.repeats, case, clock)


if __name__ == "__main__":
    main()
