"""The processors that models can be put on, and how much memory they have free."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace

import psutil

from backend.core.placement import CPU, SPREAD, Placement, check_device


@dataclass(frozen=True)
class Device:
    """A processor: `cpu` or `cuda:N`, its name, and its memory in bytes.

    free: what nobody needs now, also if torch holds it for later.
    """

    device: str
    name: str
    free: int
    total: int


def cpu() -> Device:
    """The CPU."""
    memory = psutil.virtual_memory()
    return Device(CPU, "CPU", memory.available, memory.total)


def gpus() -> tuple[Device, ...]:
    """The GPUs that torch can use; imports torch."""
    import torch

    def gpu(number: int) -> Device:
        free, total = torch.cuda.mem_get_info(number)
        held = torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)
        return Device(f"cuda:{number}", torch.cuda.get_device_name(number), free + held, total)

    return tuple(map(gpu, range(torch.cuda.device_count())))


def decided(placement: Placement) -> Placement:
    """The placement with the device that is meant; raises UserError when it is not there."""
    return replace(placement, device=check_device(placement.device, len(gpus())))


def devices_meant(placement: Placement) -> tuple[str, ...]:
    """The processors of a placement, each GPU by itself; raises UserError when one is not there."""
    device = decided(placement).device
    return tuple(one.device for one in gpus()) if device == SPREAD else (device,)


def lasting_name(device: str) -> str:
    """What a processor is called in every process, also on machines that share a folder."""
    if device == CPU:
        return f"{CPU}-{platform.node()}"
    import torch

    return f"gpu-{torch.cuda.get_device_properties(device).uuid}"


def free_bytes(device: str) -> int:
    """Memory that is free where a model would be put."""
    there = gpus() if device == SPREAD else [d for d in (cpu(), *gpus()) if d.device == device]
    return sum(one.free for one in there)
