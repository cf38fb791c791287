"""A whole recipe run as the report meets it: figures in the range of real ones, files that are really there.

The run is made by hand and not by stages: the report must be tested where no simulator and no weights are.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from embodied_midtrain.artifacts import open_stage
from embodied_midtrain.report.summary import (
    Agreement,
    AuditFacts,
    AuditFinding,
    AuditLeak,
    AuditProbe,
    AuditRanking,
    Comparison,
    Curve,
    DiversityFacts,
    EstimatorFacts,
    Files,
    MissingSource,
    MmdFacts,
    PoolFacts,
    PoolSource,
    Provenance,
    ProximityFacts,
    Rollouts,
    SelectionFacts,
    SelectorFacts,
    Share,
    SourceProximity,
    StageTime,
    Summary,
    TargetFacts,
    TargetTask,
    TrainingFacts,
    VariantResult,
    Video,
    save_summary,
)
from embodied_midtrain.samples import REGION_MARK, Picture, Region, Sample, Turn
from embodied_midtrain.sources.opening import POOL_STAGE
from embodied_midtrain.sources.table import write_table

HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">&amp;'\"</td>"
SOURCES = {
    # name: (group, samples, mean log-odds, licence)
    "tabletop": ("embodied", 90, 1.6, "Apache-2.0"),
    "libero-scenes": ("embodied", 80, 1.1, "MIT"),
    "sweethome3d": ("3-D objects", 60, -0.2, "CC-BY-3.0"),
    "gcompris": ("photos", 70, -0.8, "GPL-3.0"),
    "openclipart": ("clip art", 90, -1.3, "CC0-1.0"),
    "gimp-help": ("screenshots", 50, -2.0, "GFDL-1.2"),
    "chart-qa": ("charts", 80, -2.6, "Apache-2.0"),
    "document-ocr": ("documents", 70, -3.1, "Apache-2.0"),
}
TASKS = ("reach-v3", "button-press-v3", "drawer-open-v3", "pick-place-v3")
TITLES = {
    "off-the-shelf": "off the shelf",
    "random": "mid-trained on random",
    "selected": "mid-trained on selected",
    "scratch": "random language model",
}
SUCCESSES = {
    "off-the-shelf": (11, 17, 18, 4),
    "random": (10, 18, 18, 5),
    "selected": (15, 19, 20, 9),
    "scratch": (5, 13, 14, 1),
}
EPISODES = 20
SELECTED = 160


def pool_samples() -> list[Sample]:
    """Drawn pictures with captions, points, boxes; one hostile caption, one broken image, one text-only sample."""
    rng = np.random.default_rng(0)
    samples = []
    for name, (group, count, _, licence) in SOURCES.items():
        for i in range(count):
            picture = Picture(_picture(rng, group))
            if group == "embodied":
                region = Region("point", (0.2 + 0.6 * i / count, 0.6)) if i % 2 else Region("box", (0.2, 0.3, 0.6, 0.7))
                turns = (
                    Turn("user", "Where is the red block on the table?"),
                    Turn("assistant", f"It is at {REGION_MARK}, left of the bowl.", (region,)),
                )
            else:
                turns = (Turn("user", "Describe the image."), Turn("assistant", f"A {group} picture, number {i}."))
            samples.append(Sample(name, f"{i:05d}", (picture,), turns, licence, "fixture"))
    first = samples[0]
    samples[0] = Sample(first.source, first.id, first.pictures, (Turn("user", "?"), Turn("assistant", HOSTILE)), "MIT")
    samples[1] = Sample(samples[1].source, samples[1].id, (Picture(b"no image"),), samples[1].turns, "MIT")
    samples[2] = Sample(samples[2].source, samples[2].id, (), (Turn("assistant", "Words only."),), "MIT")
    return samples


def _picture(rng: np.random.Generator, group: str) -> bytes:
    wide = 240 if group != "documents" else 160
    image = Image.new("RGB", (wide, 180), tuple(rng.integers(150, 255, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, size = rng.integers(0, wide - 40), rng.integers(0, 140), rng.integers(16, 50)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + size, y + size), fill=tuple(rng.integers(0, 255, 3).tolist()))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def write_video(path: Path, *, frames: int = 60, side: int = 128, seed: int = 0) -> None:
    """A block that is pushed across a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=20)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.options = {"threads": "1"}
        for i in range(frames):
            image = Image.new("RGB", (side, side), (190, 170, 140))
            draw = ImageDraw.Draw(image)
            draw.rectangle((0, side * 0.66, side, side), fill=(120, 90, 60))
            x = int(8 + (side - 40) * i / frames)
            draw.rectangle((x, side // 2, x + 24, side // 2 + 24), fill=(200, 40 + seed * 30 % 200, 60))
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = i, Fraction(1, 20)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def make_run(run: Path) -> Summary:
    """Write a finished run into `run`."""
    rng = np.random.default_rng(1)
    run.mkdir(parents=True, exist_ok=True)
    with open_stage(run / "pool", POOL_STAGE, {}, {}) as stage:
        used = write_table(stage.file("samples.parquet"), pool_samples())
        stage.finish({"used": used})
    names = [name for name, (_, count, _, _) in SOURCES.items() for _ in range(count)]
    ids = [f"{i:05d}" for _, (_, count, _, _) in SOURCES.items() for i in range(count)]
    odds = np.concatenate([rng.normal(mean, 1.0, count) for _, count, mean, _ in SOURCES.values()])
    odds[0] = 9.0
    order = np.argsort(-odds)
    table = {
        "source": [names[i] for i in order],
        "id": [ids[i] for i in order],
        "score": (1 / (1 + np.exp(-odds[order]))).astype(np.float32),
        "rank": np.arange(len(order)),
    }
    (run / "select/estimator").mkdir(parents=True)
    (run / "select/random").mkdir(parents=True)
    scores = pa.table(table)
    pq.write_table(scores, run / "select/estimator/scores.parquet")
    pq.write_table(scores.slice(0, SELECTED), run / "select/estimator/selection.parquet")
    drawn = rng.permutation(len(order))[:SELECTED]
    pq.write_table(scores.take(pa.array(drawn)), run / "select/random/selection.parquet")
    _write_map(run, rng)
    videos = _write_videos(run)
    summary = _summary(table, drawn, rng, videos)
    save_summary(run, summary)
    return summary


def _write_map(run: Path, rng: np.random.Generator) -> None:
    sides, sources, points = [], [], []
    for i, (name, (_, count, _, _)) in enumerate(SOURCES.items()):
        angle = 2 * np.pi * i / len(SOURCES)
        points.append(rng.normal([0.5 + 0.3 * np.cos(angle), 0.5 + 0.3 * np.sin(angle)], 0.045, (3 * count, 2)))
        sides += ["pool"] * 3 * count
        sources += [name] * 3 * count
    for i, task in enumerate(TASKS):
        points.append(rng.normal([0.62 + 0.05 * i, 0.55 + 0.08 * i], 0.012, (80, 2)))
        sides += ["target"] * 80
        sources += [task] * 80
    xy = np.concatenate(points).astype(np.float32)
    (run / "gap").mkdir()
    pq.write_table(pa.table({"kind": sides, "source": sources, "x": xy[:, 0], "y": xy[:, 1]}), run / "gap/map.parquet")


def _write_videos(run: Path) -> tuple[Video, ...]:
    videos = []
    for seed, variant in enumerate(TITLES):
        for task in TASKS[:2]:
            for episode, success in enumerate((True, False)):
                name = f"rollouts/{variant}/videos/{task}-{episode:02d}.mp4"
                write_video(run / name, seed=seed, frames=40)
                videos.append(Video(name, variant, task, success, episode))
    return tuple(videos)


def _summary(table: dict, drawn: np.ndarray, rng: np.random.Generator, videos: tuple[Video, ...]) -> Summary:
    source = np.array(table["source"])
    place = 100 * (1 - np.arange(len(source)) / (len(source) - 1))
    by_source, other = [], []
    for name, (group, count, _, _) in SOURCES.items():
        low, middle, high = np.percentile(place[source == name], [25, 50, 75]).tolist()
        by_source.append(SourceProximity(name, count, middle, low, high, group, 0.81))
        other.append(SourceProximity(name, count, float(np.clip(middle + rng.normal(0, 4), 0, 100)), low, high, group))
    matrix_names = (*SOURCES, "pool", *(f"target: {task}" for task in TASKS), "target")
    at = np.linspace(0, 1, len(matrix_names)) + rng.normal(0, 0.08, len(matrix_names))
    matrix = np.round(np.abs(at[:, None] - at[None]) * 0.8, 4)
    steps = tuple(range(1, 401, 2))

    def loss(start: float, end: float) -> Curve:
        fall = end + (start - end) * np.exp(-np.array(steps) / 90) + rng.normal(0, 0.03, len(steps))
        return Curve("loss", steps, tuple(fall.tolist()))

    return Summary(
        name="quickstart",
        seed=0,
        created="2026-11-20T22:00:00+00:00",
        machine="Linux x86_64, 2 cores, 24 GiB",
        benchmark="Meta-World (4 tasks)",
        stages=(
            StageTime("pool", 96.2, 900 * 2**20),
            StageTime("demos", 141.0, 1600 * 2**20),
            StageTime("embed pool", 260.4, 3 * 2**30),
            StageTime("embed target", 120.4, 3 * 2**30),
            StageTime("gap", 22.0, 2**30),
            StageTime("select estimator", 4.2, 2**30),
            StageTime("midtrain selected", 310.0, 4 * 2**30),
            StageTime("finetune selected", 280.0, 5 * 2**30),
            StageTime("rollout selected", 95.0, 2 * 2**30),
        ),
        pool=PoolFacts(
            tuple(
                PoolSource(name, count, group, licence, {"broken image": 2} if group == "photos" else {})
                for name, (group, count, _, licence) in SOURCES.items()
            ),
            (MissingSource("povray-examples", "apt-get is not there; on Debian: apt-get install apt"),),
        ),
        target=TargetFacts(
            "Meta-World",
            120,
            4100,
            tuple(TargetTask(t, 30, 1025, f"do what {t.rsplit('-', 1)[0].replace('-', ' ')} asks") for t in TASKS),
        ),
        estimator=EstimatorFacts(
            0.914,
            31,
            "accuracy",
            ("Text length and score are related (rank correlation 0.31).",),
            Curve("validation accuracy", tuple(range(1, 32)), tuple((0.5 + 0.414 * np.arange(31) / 30).tolist())),
        ),
        proximity=ProximityFacts(
            tuple(by_source),
            tuple(other),
            "What action should the robotic arm take to {instruction}",
            "{instruction}",
            0.93,
            0.81,
            0.72,
        ),
        audit=AuditFacts(
            "partly a shortcut: image size",
            (
                AuditFinding("text", "good", "The words alone tell the sides apart in 100 %; the ranking stays."),
                AuditFinding("image size", "bad", "The size of the picture alone tells the sides apart in 93 %."),
                AuditFinding("fit", "note", "The fit says: degenerate."),
            ),
            (AuditProbe("words alone", 1.0), AuditProbe("size of the picture alone", 0.93)),
            (AuditRanking("the robot's prompt", 0.98, 0.96), AuditRanking("the seed (least of 5)", 0.99, None, 0.97)),
            1, 640, 4100, (AuditLeak("tabletop", "00003", "reach-v3/demo_1/0012", 2),), ("other prompt. None given.",),
        ),
        mmd=MmdFacts(matrix_names, tuple(tuple(row) for row in matrix.tolist()), 31.2),
        diversity=DiversityFacts(1.9, 1.12, {"random": 1.88, "selected": 1.41}, "1 / E[exp(-2 |u - v|²)]"),
        selections=(_selection("random", source[drawn]), _selection("selected", source[:SELECTED])),
        selectors=_selectors(sorted(set(source.tolist()))),
        midtrain=tuple(
            TrainingFacts(v, 400, 310.0, (loss(3.1, end),), "full") for v, end in (("random", 1.4), ("selected", 1.1))
        ),
        policies=tuple(
            TrainingFacts(v, 400, 280.0, (loss(1.0, end),), "frozen")
            for v, end in zip(TITLES, (0.031, 0.03, 0.024, 0.05), strict=True)
        ),
        rollouts=tuple(
            Rollouts(variant, task, n, EPISODES, *_interval(n, EPISODES))
            for variant, row in SUCCESSES.items()
            for task, n in zip(TASKS, row, strict=True)
        ),
        variants=tuple(
            VariantResult(v, sum(r) / 80, *_interval(sum(r), 80), 80, TITLES[v]) for v, r in SUCCESSES.items()
        ),
        comparisons=(
            Comparison(
                "selected", "off-the-shelf", 0.163, 0.03, 0.29, 0.01,
                "mid-trained on selected is ahead of off the shelf by 16 points (3 to 29): more than noise.", "better",
                p_adjusted=0.03,
            ),
            Comparison(
                "random", "off-the-shelf", 0.0125, -0.13, 0.15, 0.87,
                "mid-trained on random against off the shelf: +1 points (-13 to 15), no more than noise.",
                p_adjusted=0.87,
            ),
            Comparison(
                "selected", "random", 0.15, 0.02, 0.28, 0.012,
                "mid-trained on selected is ahead of mid-trained on random by 15 points (2 to 28): more than noise.",
                "better", p_adjusted=0.03,
            ),
            Comparison(
                "off-the-shelf", "scratch", 0.21, 0.06, 0.36, 0.006,
                "The pretrained language model is ahead of a random one by 21 points (6 to 36): "
                "this benchmark can tell initialisations apart.", "better", "initialisation",
            ),
        ),
        videos=videos,
        faults=(),
        files=Files(pool="pool", map="gap/map.parquet", scores="select/estimator/scores.parquet"),
        provenance=Provenance(
            "0.1.0", "3.11.2", {"torch": "2.13.0", "transformers": "5.23.0"}, {"recipe": 0},
            {"pool": "8d1f00c3a4b5e6f7", "gap": "0011aabbccddeeff"}, "compact",
            "name: quickstart\nseed: 0\nselect:\n  k: 160\n", "emt quickstart",
        ),
    )  # fmt: skip


def _selectors(sources: list[str]) -> tuple[SelectorFacts, ...]:
    names = ("estimator", "knn-distance", "constant")
    spearman = {("estimator", "knn-distance"): -0.71, ("knn-distance", "estimator"): -0.71}
    return tuple(
        SelectorFacts(
            name,
            {
                other: Agreement(None if "constant" in (name, other) else spearman.get((name, other), 1.0), 0.37)
                for other in names
            },
            0.18,
            {source: 5.0 * n for n, source in enumerate(sources)},
        )
        for name in names
    )


def _selection(variant: str, sources: np.ndarray) -> SelectionFacts:
    shares = tuple(
        Share(name, (sources == name).mean(), (sources == name).mean(), int((sources == name).sum()), 0, group)
        for name, (group, _, _, _) in SOURCES.items()
    )
    table = "select/estimator/selection.parquet" if variant == "selected" else "select/random/selection.parquet"
    return SelectionFacts(variant, "estimator" if variant == "selected" else "random", SELECTED, shares, table)


def _interval(successes: int, episodes: int) -> tuple[float, float]:
    """Wilson, 95 %."""
    p, z = successes / episodes, 1.96
    middle = (p + z * z / (2 * episodes)) / (1 + z * z / episodes)
    half = z / (1 + z * z / episodes) * (p * (1 - p) / episodes + z * z / (4 * episodes**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
