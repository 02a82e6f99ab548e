"""Build what runs on the cluster: the packaged job, its wheels, and the scripts that install and start it.

The constants describe the cluster's nodes. ``bootstrap.sh`` repeats some of them; a test holds that they are equal.
"""

PREFIX = "/opt/nightjar"
"""Folder that ``bootstrap.sh`` installs into."""
PYTHON = f"{PREFIX}/env/bin/python"
"""The job's Python interpreter on every node."""
PYTHON_VERSION = (3, 11)
"""The Python of the EMR release."""
GLIBC_MINOR = 34
"""The nodes have glibc 2.34 (Amazon Linux 2023)."""
PROVIDED_BY_EMR = frozenset({"pyspark", "py4j"})
"""Distributions that the EMR release brings in a patched version. Another copy in the environment would hide it."""
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")
"""Prefixes of the distributions that torch needs for CUDA."""
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's index of CPU builds, used where pip's configured index has none."""
TORCH_CUDA = "cu126"
"""The build of torch for GPUs, as its version ends. The release's driver (CUDA 12.5) runs builds for any CUDA 12."""
TORCH_CUDA_INDEX = f"https://download.pytorch.org/whl/{TORCH_CUDA}"
"""PyTorch's index of the builds for `TORCH_CUDA`."""
