"""How long until ``onnx-net2net --help`` is there: a ratio against a Python that does nothing.

    python tests/benchmarks/startup.py [repeats]

The commands alternate, and the best time of each counts.
"""

from __future__ import annotations

import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import click'": ["-c", "import click"],
    "onnx-net2net --help": ["-m", "onnx_net2net", "--help"],
    "python -c 'import onnx'": ["-c", "import onnx"],
    "python -c 'import onnxruntime'": ["-c", "import onnxruntime"],
}


def seconds(arguments: list[str]) -> float:
    """One run of a fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():
            best[name] = min(best[name], seconds(arguments))
    base = best["python -c pass"]
    print(f"{'best of ' + str(repeats):32} {'ms':>8} {'ratio':>7}")
    for name, time_taken in best.items():
        print(f"{name:32} {time_taken * 1000:8.0f} {time_taken / base:7.1f}")


if __name__ == "__main__":
    main()
