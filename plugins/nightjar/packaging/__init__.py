"""Build what runs on the cluster: the packaged job, its wheels, and the scripts that install and start it.

The constants describe the cluster's nodes. ``bootstrap.sh`` repeats some of them; a test checks that they are equal.
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
"""Distributions of which the EMR release has a patched version. A copy in the job's environment would override it."""
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton")
"""Prefixes of the distributions that torch needs for CUDA."""
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's index of CPU builds. It is used if the index that pip is configured to use has no CPU build."""
TORCH_CUDA = "cu126"
"""The version suffix of torch's GPU build. The EMR release's GPU driver (CUDA 12.5) runs builds for any CUDA 12."""
TORCH_CUDA_INDEX = f"https://download.pytorch.org/whl/{TORCH_CUDA}"
"""PyTorch's index of the builds for `TORCH_CUDA`."""
