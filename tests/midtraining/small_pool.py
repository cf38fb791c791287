"""A pool of twelve samples of two sources, and selections of it."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from embodied_midtrain.artifacts import Artifact, open_stage
from embodied_midtrain.samples import Picture, question
from embodied_midtrain.sources.table import write_table


def picture(seed: int) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Picture(data=file.getvalue())


def samples():
    """Twelve samples of two sources; each answer is as long as its number says."""
    return [
        question("books" if n < 4 else "charts", f"{n:02d}", picture(n), "What is it?", "a" * (3 + n))
        for n in range(12)
    ]


def make_pool(folder, rows):
    with open_stage(folder, "pool build", {}, {}) as run:
        write_table(run.file("samples.parquet"), rows)
        run.finish({"used": len(rows)})
    return folder


def select(folder, rows) -> Artifact:
    with open_stage(folder, "select", {}, {}) as run:
        columns = {"source": [r.source for r in rows], "id": [r.id for r in rows]}
        pq.write_table(pa.table({**columns, "rank": list(range(len(rows)))}), run.file("selection.parquet"))
        return run.finish()
