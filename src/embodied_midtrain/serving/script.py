"""What `vla-eval serve --config` and `vla-eval test -c` start: their options as those of `emt serve`.

A config names this file as its `script` and the options under `args` (docs/serving.md has one).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence


def options(given: Sequence[str]) -> list[str]:
    """--args.max_batch=8 --port=8001 -> --max-batch 8 --port 8001; the policy comes first.

    Raises:
        ValueError: on a word that is no option with a value.
    """
    found: list[str] = []
    policy: list[str] = []
    words = list(given)
    while words:
        match = re.fullmatch(r"--(?:args\.)?([a-z_]+)(?:=(.*))?", words.pop(0))
        if match is None or (match[2] is None and not words):
            raise ValueError(f"cannot understand {' '.join(given)}: wanted --args.NAME=VALUE, --host or --port")
        name, value = match[1], match[2] if match[2] is not None else words.pop(0)
        if name == "address":
            host, _, port = value.rpartition(":")
            found += ["--host", host or "127.0.0.1", "--port", port]
        elif name == "policy":
            policy = [value]
        elif value in ("true", "True"):
            found.append(f"--{name.replace('_', '-')}")
        elif value not in ("false", "False"):
            found += [f"--{name.replace('_', '-')}", value]
    return [*policy, *found]


if __name__ == "__main__":
    words = ["-m", "embodied_midtrain.cli", "serve", *options(sys.argv[1:])]
    os.execv(sys.executable, [sys.executable, *words])
