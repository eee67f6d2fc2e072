"""Growing between epochs where several processes train: DDP, FSDP2, distributed checkpoints.

Two processes run every scenario below, one after another, over gloo; a test is what each of them
raised in one scenario.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [torch]")
pytest.importorskip("onnxscript", reason="needs the extra [torch]")
import torch.distributed as dist  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.distributed.checkpoint import state_dict as states  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module  # noqa: E402
from torch.nn.parallel import DistributedDataParallel  # noqa: E402

import onnx_net2net as n2n  # noqa: E402
from onnx_net2net.errors import Net2NetError  # noqa: E402
from onnx_net2net.frameworks.torch import distributed  # noqa: E402

PROCESSES = 2
FULL = states.StateDictOptions(full_state_dict=True)


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Net(nn.Module):
    """A residual stream; no axis is as long for one process as for the other."""

    def __init__(self, width: int = 7, hidden: int = 9, depth: int = 1) -> None:
        super().__init__()
        self.stem = nn.Linear(5, width)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def normalised(width: int) -> nn.Module:
    """A network with statistics, of which each process has its own."""
    return nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def built(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def small_net() -> nn.Module:
    return built(Net)


def large_net() -> nn.Module:
    return built(lambda: Net(11, 13, 3))


def sharded(module: nn.Module) -> nn.Module:
    for block in module.blocks:
        fully_shard(block)
    return fully_shard(module)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=1e-2, amsgrad=True)


def batch(rank: int) -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(rank))


BATCHES = torch.cat([batch(rank) for rank in range(PROCESSES)])


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


def outputs(module: nn.Module, x: Tensor = BATCHES) -> Tensor:
    training = module.training
    with torch.no_grad():
        result = module.eval()(x)
    module.train(training)
    return result


def whole(tensors: Any) -> dict[str, Tensor]:
    return {
        name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone()
        for name, t in tensors
    }


def moments(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer keeps for each parameter, by name; in shards like the parameter's own."""
    kept = {}
    for name, parameter in module.named_parameters():
        for what, value in optimizer.state.get(parameter, {}).items():
            if value.ndim:
                places = [getattr(t, "placements", None) for t in (value, parameter)]
                assert places[0] == places[1], name
            kept[f"{name} {what}"] = value
    return whole(kept.items())


def same_everywhere(tensors: dict[str, Tensor]) -> None:
    everyone: list[Any] = [None] * PROCESSES
    dist.all_gather_object(everyone, tensors)
    equal(everyone[0], tensors)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different


# ---- scenarios: every process runs them ---------------------------------------------------------


def goes_on(modules: tuple[nn.Module, nn.Module], wrap: Callable[[nn.Module], Any]) -> None:
    """Grow between epochs; training goes on as if one process had done it all."""
    rank, plain = dist.get_rank(), copy.deepcopy(modules)
    small, large = map(wrap, modules)
    old, new = adam(small), adam(large)
    trained(small, old, batch(rank))
    everything = states.get_state_dict(small, old, options=FULL)
    outputs(small)  # FSDP now holds, whole, what belongs to no block
    report = n2n.transfer(small, large, batch(rank)[: 3 + rank], optimizer=old, large_optimizer=new)
    before = outputs(small)
    torch.testing.assert_close(outputs(large), before, rtol=1e-4, atol=1e-5)
    grown = whole(distributed.tensors_of(distributed.bare(large)).items())
    same_everywhere({**grown, **moments(large, new)})

    kept = adam(plain[0]), adam(plain[1])
    states.set_state_dict(
        plain[0], kept[0], model_state_dict=everything[0], optim_state_dict=everything[1],
        options=FULL,
    )  # fmt: skip
    alone = n2n.transfer(*plain, batch(0)[:3], optimizer=kept[0], large_optimizer=kept[1])
    assert str(alone) == str(report)
    equal(grown, whole(plain[1].state_dict().items()))
    equal(renamed(moments(large, new)), moments(plain[1], kept[1]))
    equal(epsilons(large), epsilons(plain[1]))

    trained(large, new, batch(rank))
    same_everywhere(whole(large.named_parameters()))
    if not any(isinstance(part, nn.BatchNorm1d) for part in large.modules()):
        trained(plain[1], kept[1], BATCHES)
        torch.testing.assert_close(outputs(plain[1]), outputs(large), rtol=1e-3, atol=1e-4)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as the module has them that DDP wraps."""
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def fsdp(folder: Path) -> None:
    goes_on((small_net(), large_net()), sharded)


def ddp_with_statistics(folder: Path) -> None:
    goes_on((built(lambda: normalised(8)), built(lambda: normalised(12))), DistributedDataParallel)


def replicated_and_sharded(folder: Path) -> None:
    mesh = init_device_mesh("cpu", (1, PROCESSES), mesh_dim_names=("copies", "shards"))
    small, large = (fully_shard(net(), mesh=mesh) for net in (small_net, large_net))
    n2n.transfer(small, large, batch(0))
    torch.testing.assert_close(outputs(large), outputs(small), rtol=1e-4, atol=1e-5)


def whole_into_sharded(folder: Path) -> None:
    """Small enough to train on each process alone, the larger one no more."""
    small, large = small_net(), sharded(large_net())
    n2n.transfer(small, large, batch(0))
    torch.testing.assert_close(outputs(large), outputs(small), rtol=1e-4, atol=1e-5)


def parted(module: nn.Module) -> nn.Module:
    """Another start on each process."""
    with torch.no_grad():
        module.stem.bias += dist.get_rank()
    return module


def tensor_parallel(module: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (PROCESSES,))
    return parallelize_module(module, mesh, {"stem": ColwiseParallel()})


def mine_alone(module: nn.Module) -> nn.Module:
    groups = [dist.new_group([rank]) for rank in range(PROCESSES)]
    return DistributedDataParallel(module, process_group=groups[dist.get_rank()])


def parts_in_ddp(module: nn.Module) -> nn.Module:
    module.stem = DistributedDataParallel(module.stem)
    return module


def on_meta(module: nn.Module) -> nn.Module:
    return sharded(module.to("meta"))


Wrap = Callable[[nn.Module], nn.Module]
# How both modules are distributed, and what the error says.
REFUSED: dict[str, tuple[Wrap, Wrap, str]] = {
    "tensor parallel": (tensor_parallel, sharded, "stem.* is tensor parallel"),
    "part in ddp": (sharded, parts_in_ddp, "wrapped in DistributedDataParallel"),
    "subgroup": (mine_alone, sharded, "1 of 2 processes"),
    "different": (parted, sharded, "hold different things: stem.bias of the smaller module"),
    "no contents": (sharded, on_meta, "no contents"),
    "too small": (lambda _: sharded(large_net()), lambda _: sharded(small_net()), "11 -> 7|shrink"),
}


def refused(small: Any, large: Any, match: str, **more: Any) -> None:
    """Every process raises the same, and the larger module and its optimizer are as they were."""
    before = held(large, more.get("large_optimizer"))
    with pytest.raises(Net2NetError, match=match) as caught:
        n2n.transfer(small, large, batch(0), **more)
    everyone: list[Any] = [None] * PROCESSES
    dist.all_gather_object(everyone, caught.value)
    assert {(type(error), str(error)) for error in everyone} == {
        (type(caught.value), str(caught.value))
    }
    equal(before, held(large, more.get("large_optimizer")))


def held(module: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """What this process holds of a module, and of the state of its optimizer."""
    tensors = {
        name: (t.to_local() if isinstance(t, DTensor) else t).detach().clone()
        for name, t in module.state_dict().items()
        if not t.is_meta
    }
    kept = {} if optimizer is None else moments(module, optimizer)
    return {**tensors, **kept, **epsilons(module)}


def epsilons(module: nn.Module) -> dict[str, Tensor]:
    """What the norms of a module add to variances, which no state dict holds."""
    return {
        f"{name.removeprefix('module.')}.eps": torch.tensor(part.eps)
        for name, part in module.named_modules()
        if isinstance(part, nn.LayerNorm)
    }


def what_is_distributed_otherwise_is_refused(folder: Path) -> None:
    for first, second, match in REFUSED.values():
        refused(first(small_net()), second(large_net()), match)


def optimizers_that_differ_are_refused(folder: Path) -> None:
    small, large = sharded(small_net()), sharded(large_net())
    old, new = adam(small), adam(large)
    one = {"optimizer": old, "large_optimizer": new if dist.get_rank() else None}
    refused(small, large, "different things: the optimizer of the larger", **one)
    refused(small, large, "one optimizer alone", optimizer=old)
    sgd = torch.optim.SGD(large.parameters())
    refused(small, large, "AdamW and SGD", optimizer=old, large_optimizer=sgd)
    from torch.distributed.optim import ZeroRedundancyOptimizer  # it warns of its own scripts

    plain = small_net()
    zero = ZeroRedundancyOptimizer(plain.parameters(), torch.optim.AdamW, lr=0.1)
    refused(plain, large, "ZeroRedundancyOptimizer", optimizer=zero, large_optimizer=new)


def a_wrong_shard_is_taken_back(folder: Path) -> None:
    """Planted: one process alone writes something else, late."""
    small, large = sharded(small_net()), sharded(large_net())
    old, new = adam(small), adam(large)
    trained(small, old, batch(0))
    trained(large, new, batch(0))
    original = distributed._part

    def wrong(value: Tensor, like: Tensor) -> Tensor:
        part = original(value, like)
        last = dist.get_rank() == PROCESSES - 1 and tuple(like.shape) == (3, 11)
        return part * 2 if last else part

    distributed._part = wrong
    try:
        refused(
            small, large, "head.weight.*not what was written", optimizer=old, large_optimizer=new
        )
    finally:
        distributed._part = original


def checkpoints(folder: Path) -> None:
    """Save the trained small one, and the larger one after its first step."""
    small, large = sharded(small_net()), sharded(large_net())
    old, new = adam(small), adam(large)
    trained(small, old, batch(0))
    save(small, old, folder / "small")
    report = n2n.transfer(small, large, batch(0), optimizer=old, large_optimizer=new)
    trained(large, new, batch(0))
    save(large, new, folder / "large")
    results = {"small": outputs(small), "large": outputs(large), "settings": report.settings}
    if dist.get_rank() == 0:
        torch.save(results, folder / "results.pt")

    again, kept = sharded(small_net()), None
    kept = adam(again)
    load(again, kept, folder / "small")
    another = sharded(large_net())
    n2n.transfer(again, another, batch(0), optimizer=kept, large_optimizer=adam(another))
    torch.testing.assert_close(outputs(another), results["small"], rtol=1e-4, atol=1e-5)


def save(module: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    weights, state = states.get_state_dict(module, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def load(module: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    weights, state = states.get_state_dict(module, optimizer)
    loaded = {"model": weights, "optimizer": state}
    dcp.load(loaded, checkpoint_id=folder)
    states.set_state_dict(
        module, optimizer, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"]
    )


SCENARIOS: tuple[Callable[[Path], None], ...] = (
    fsdp, ddp_with_statistics, replicated_and_sharded, whole_into_sharded,
    what_is_distributed_otherwise_is_refused, optimizers_that_differ_are_refused,
    a_wrong_shard_is_taken_back, checkpoints,
)  # fmt: skip


# ---- the tests ----------------------------------------------------------------------------------


def process(rank: int, folder: Path) -> None:
    """Run all scenarios; write what each raised, nothing where it went well."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    for scenario in SCENARIOS:
        try:
            scenario(folder)
            text = ""
        except BaseException:
            text = traceback.format_exc()
        (folder / f"{scenario.__name__} {rank}").write_text(text)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (folder,), PROCESSES)
    return folder


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_two_processes_grow_what_they_hold_together(
    folder: Path, scenario: Callable[[Path], None]
) -> None:
    for rank in range(PROCESSES):
        raised = (folder / f"{scenario.__name__} {rank}").read_text()
        assert not raised, f"process {rank}:\n{raised}"


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_one_process_goes_on_from_checkpoints_of_two(folder: Path) -> None:
    results = torch.load(folder / "results.pt", weights_only=False)
    small, large = small_net(), large_net()
    old, new = adam(small), adam(large)
    load(small, old, folder / "small")
    torch.testing.assert_close(outputs(small), results["small"])
    n2n.transfer(small, large, batch(0), optimizer=old, large_optimizer=new)
    torch.testing.assert_close(outputs(large), results["small"], rtol=1e-4, atol=1e-5)

    later = large_net()
    load(later, adam(later), folder / "large")
    assert not torch.allclose(outputs(later), results["large"], rtol=1e-6, atol=1e-7), "no eps yet"
    for setting in results["settings"]:
        setattr(setting.holder(later), setting.attribute, setting.new)
    torch.testing.assert_close(outputs(later), results["large"])


def test_what_a_process_holds_lies_in_memory_as_its_parameter_does() -> None:
    like = torch.empty(4, 3, 2, 2).to(memory_format=torch.channels_last)
    value = torch.randn(4, 3, 2, 2)
    part = distributed._part(value, like)
    assert part.stride() == like.stride() != value.stride()
    assert torch.equal(part, value)
