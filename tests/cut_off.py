"""Cuts a writer off before each call that changes a folder, one after the other.

    python -m tests.cut_off model FOLDER [FAULT]

The process is killed there, or the call fails as on a full disk. Prints one JSON list for each cut:
how, the number and name of the call, whether the writer finished or complained, what a reader finds
("old", "new", or what is wrong), what lies in the folder then; and both again after the next run. A
FAULT is planted into the writer, to show that the cuts would find it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_net2net.errors import Net2NetError, OutputError
from onnx_net2net.model import placing
from onnx_net2net.model.atomic_write import place
from onnx_net2net.model.model import load

CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "open"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILLED, COMPLAINED = 9, 3


def dense(scale: float, others: int = 0) -> onnx.ModelProto:
    """A network with a weight that is worth a file of its own, and as many others as are wanted."""
    weight = np.arange(1, 1201, dtype=np.float32).reshape(40, 30) * np.float32(scale)
    square = np.arange(1, 901, dtype=np.float32).reshape(30, 30) * np.float32(scale / 1e5)
    names = ["y", *(f"y{i}" for i in range(others))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weights = [numpy_helper.from_array(weight, "w")]
    for i in range(others):
        nodes.append(helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]))
        weights.append(numpy_helper.from_array(square + i, f"w{i}"))
    graph = helper.make_graph(
        nodes,
        f"scaled by {scale}",
        [helper.make_tensor_value_info("x", 1, ["n", 40])],
        [helper.make_tensor_value_info(names[-1], 1, ["n", 30])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


class ModelFiles:
    """A model and its data; saving over another such pair."""

    others, shards = 0, None

    def __init__(self, folder: Path) -> None:
        self.path = folder / "m.onnx"
        self.old, self.new = (load(dense(scale, self.others)) for scale in (2, 3))
        self.digests = {self.old.sha256(): "old", self.new.sha256(): "new"}

    def begin(self) -> None:
        self.old.save(self.path, external=True, shards=self.shards)

    def write(self) -> None:
        self.new.save(self.path, external=True, shards=self.shards)

    def read(self) -> str:
        try:
            return self.digests.get(load(self.path).sha256(), "a mixture")
        except Net2NetError as error:
            return error.problem


class ShardedFiles(ModelFiles):
    """A model and several files of data."""

    others, shards = 2, "5KB"


class PackageFiles:
    """A folder whose ``model.py`` refers to a file of weights."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "package"
        self.text = 'load(Path(__file__).with_name("model.safetensors"))  # {}\n'

    def _draft(self, version: str) -> Callable[[Path], None]:
        def write(draft: Path) -> None:
            draft.mkdir()
            (draft / "model.safetensors").write_text(version)
            (draft / "model.py").write_text(self.text.format(version))

        return write

    def begin(self) -> None:
        place(self.path, write=self._draft("old"), entry="model.py", force=True)
        (self.path / "train.py").write_text("the user's own")

    def write(self) -> None:
        place(self.path, write=self._draft("new"), entry="model.py", force=True)

    def read(self) -> str:
        text = (self.path / "model.py").read_text()
        name = text.split('"')[1]
        weights = self.path / name
        held = weights.read_text() if weights.exists() else "nothing"
        whole = text == self.text.format(held).replace("model.safetensors", name)
        return held if whole else f"{name} holds {held} for {text!r}"


WRITERS = {"model": ModelFiles, "package": PackageFiles, "shards": ShardedFiles}


def plant(fault: str) -> None:
    """Make the writer do something that is not safe."""
    if fault == "model first":

        def wrong(draft: Path, data: list[Path], final: Path, force: bool) -> None:
            placing.place_file(draft, final, force)
            for file in data:
                os.replace(file, final.with_name(file.name))

        import onnx_net2net.model.saving as saving

        saving.place_model = wrong
    elif fault == "one name":
        import onnx_net2net.model.saving as saving

        saving.data_name = lambda model, digest: f"{model}.data"
    elif fault == "no bridge":
        placing._exchange = placing._add
    else:
        raise ValueError(fault)


def cut(write: Callable[[], None], folder: Path, number: int, how: str) -> tuple[int, str]:
    """Let a child process write, cut off before call ``number``; its exit code and that call."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        count = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal count
            if event not in CHANGING or not str(arguments[0]).startswith(str(folder)):
                return
            if event == "open" and not arguments[2] & WRITING:
                return
            count += 1
            if count == number:
                os.write(writer, event.encode())
                if how == "kill":
                    os._exit(KILLED)
                raise OSError(28, "No space left on device")

        sys.addaudithook(hook)
        try:
            write()
        except OutputError:
            os._exit(COMPLAINED)
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    call = os.read(reader, 100).decode()
    os.close(reader)
    return os.waitstatus_to_exitcode(status), call


def listing(folder: Path) -> list[str]:
    """All files of a folder, digests blotted out."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(re.sub(r"\b[0-9a-f]{12,16}\b", "#", name) for name in names)


def cuts(kind: str, folder: Path) -> Iterator[list]:
    """All cuts of one writer, each on a fresh folder."""
    for how in ("kill", "fail"):
        number = 0
        while True:
            number += 1
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            files = WRITERS[kind](folder)
            files.begin()
            code, call = cut(files.write, folder, number, how)
            if not call:
                assert code == 0
                break
            outcome = {KILLED: "killed", COMPLAINED: "complained", 0: "finished"}.get(code, code)
            found, left = files.read(), listing(folder)
            files.write()
            yield [how, number, call, outcome, found, left, files.read(), listing(folder)]


def main(kind: str, folder: str, fault: str = "") -> None:
    if fault:
        plant(fault)
    for found in cuts(kind, Path(folder)):
        print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
