"""Which device and which number format to use when the user does not say."""

from __future__ import annotations

from pathlib import Path

import torch

from affectlens.core.errors import unknown

DTYPES: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float16": torch.float16,
}
_ALIASES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16", "half": "float16"}


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the best there is: CUDA, then MPS, then the CPU.

    Raises:
        UnknownNameError: If it does not exist on this machine.
    """
    mps = torch.backends.mps.is_available()
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    present = ["cpu", *(["mps"] if mps else [])]
    present += [name for i in range(torch.cuda.device_count()) for name in ("cuda", f"cuda:{i}")]
    if str(device) not in present:
        raise unknown("device", device, present)
    return torch.device(device)


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or bfloat16 where the device computes in it natively, else float32.

    Raises:
        UnknownNameError: If it is not one of :data:`DTYPES`.
    """
    if dtype is None:
        return torch.bfloat16 if _native_bfloat16(device) else torch.float32
    name = str(dtype).removeprefix("torch.").lower()
    name = _ALIASES.get(name, name)
    if name not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    return DTYPES[name]


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        return bool(
            torch.cpu._is_amx_tile_supported()  # pyright: ignore[reportPrivateUsage]
            or torch.cpu._is_avx512_bf16_supported()  # pyright: ignore[reportPrivateUsage]
        )
    except (AttributeError, RuntimeError):
        return _cpu_flags_say_bfloat16()


def _cpu_flags_say_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = {
        flag
        for line in text.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")
        for flag in line.partition(":")[2].split()
    }
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})
