"""What this image's torch has kernels for, in words of the operator's setting `kernels`; needs no GPU.

python -m tuning.training.kernels
"""

from presets import kernels


def installed() -> kernels.Kernels:
    """Of the torch that is installed here; raises ValueError."""
    import torch  # noqa: PLC0415

    # get_arch_list of some releases answers nothing where there is no GPU
    flags = torch.cuda.get_arch_list() or (torch._C._cuda_getArchFlags() or "").split()  # noqa: SLF001
    return kernels.Kernels.of(flags, torch.version.cuda or "none")


if __name__ == "__main__":
    print(installed().model_dump_json(by_alias=True))  # noqa: T201
