"""Which processor a network runs on, and in which numbers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rlplay.core import Array, Mistake

DeviceName = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["auto", "float32", "bfloat16"]
CompileName = Literal["off", "default", "reduce-overhead"]

Net = TypeVar("Net", bound=nn.Module)


def device(name: DeviceName) -> torch.device:
    """Return the device; `auto` is CUDA where there is one. Raises Mistake where CUDA is asked for
    and missing."""
    if name == "cuda" and not torch.cuda.is_available():
        raise Mistake("device cuda was asked for, but torch finds no CUDA GPU; set `device: auto`")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def precision(name: PrecisionName, device: torch.device, pays: bool) -> torch.dtype:
    """Return the dtype to compute in; `auto` is bfloat16 where the processor multiplies it in
    hardware and the network is large enough that it `pays`."""
    if name == "auto":
        name = "bfloat16" if pays and has_bfloat16(device) else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def spare_threads(pays: bool) -> None:
    """Let torch compute on one thread where the network is too small for a second to pay."""
    if not pays:
        torch.set_num_threads(1)


def moved(array: Array, device: torch.device) -> Tensor:
    """Return an array as a tensor on the device; on the CPU in the same memory, to CUDA by way of
    pinned memory, without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def compiled(network: Net, name: CompileName) -> Net:
    """Let torch.compile make kernels for a network, when it is first called with each shape; its
    parameters keep their names."""
    if name != "off":
        network.compile(mode=name, dynamic=False)
    return network


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def free_memory(device: torch.device) -> int:
    """Return how many bytes can still be taken on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():  # not Linux: what is free is not told, so all of it
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kilobytes = re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())
    assert kilobytes, "/proc/meminfo without MemAvailable"
    free = int(kilobytes[1]) * 1024
    group = Path("/sys/fs/cgroup")  # a container may be allowed less than the machine has
    if (group / "memory.max").exists() and (limit := (group / "memory.max").read_text()) != "max\n":
        free = min(free, int(limit) - int((group / "memory.current").read_text()))
    return free


class Replayed:
    """A network on CUDA for up to B inputs at once, whose kernels are recorded once and then
    launched as one (a CUDA graph): a small network spends most of its time on launching them."""

    def __init__(self, network: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> None:
        """Record what `network` does to `x` [B, ...], which lies on CUDA, as its weights do."""
        self.network, self.x, self.graph = network, x, torch.cuda.CUDAGraph()
        before = torch.cuda.Stream(x.device)
        before.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(before):  # what libraries prepare when first called is not recorded
            for _ in range(3):
                network(x)
        torch.cuda.current_stream(x.device).wait_stream(before)
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.found = network(x)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the network says of `x` [up to B, ...]; the next call overwrites it."""
        if len(x) > len(self.x):
            return self.network(x)
        self.x[: len(x)].copy_(x, non_blocking=True)
        self.graph.replay()
        return tuple(one[: len(x)] for one in self.found)
