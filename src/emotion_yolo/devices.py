"""Numeric precisions of this CPU. The only root module that imports torch, and only when called."""


def cpu_has_bf16() -> bool:
    """Say whether the CPU has instructions for bf16; without them, PyTorch is 200 times slower in it."""
    import torch

    # PyTorch has no public query for it (2.15); both of these are what its own tests and Inductor ask.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
