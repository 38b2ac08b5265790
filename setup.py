"""Builds `eefast._C`, the C++ and CUDA half. All metadata is in pyproject.toml."""

import os
import shlex
import shutil
import sys
from glob import glob

import setuptools
from setuptools import find_packages, setup

if int(setuptools.__version__.split(".")[0]) < 77:  # which reads pyproject.toml's licence
    sys.exit(
        f"eefast builds with setuptools>=77, and {setuptools.__version__} is installed: "
        "pip install 'setuptools>=77'"
    )
try:
    from torch.utils import cpp_extension
except ImportError as error:
    sys.exit(
        f"eefast builds against the torch that is installed, and importing it failed: {error}. "
        "Install torch>=2.11, setuptools and ninja first, then use --no-build-isolation."
    )


def has_compiler() -> bool:
    """Whether there is a C++ compiler. One that was asked for by name must exist."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))[0]
    if shutil.which(compiler):
        return True
    if "CXX" in os.environ:
        sys.exit(f"CXX asks for the compiler {compiler}, which was not found.")
    print(
        "eefast: no C++ compiler (c++) was found. The extension eefast._C is NOT BUILT and "
        "impl='cpp' will not be available: install one, for instance g++, then eefast again.",
        file=sys.stderr,
    )
    return False


# `make sanitize`: the CPU half in a build that ends with a report where it reads or writes beyond
# memory, or does what C++ leaves undefined.
SANITIZERS = ["-fsanitize=address,undefined"] if "EEFAST_SANITIZE" in os.environ else []
OPTIMISATION = ["-O1", "-fno-sanitize-recover=all"] if SANITIZERS else ["-O3"]

HOST_FLAGS = [
    "-g1" if SANITIZERS else "-g0",
    "-fvisibility=hidden",
    # Otherwise messages would show the paths at which the extension and torch were built.
    f"-ffile-prefix-map={cpp_extension.include_paths()[0]}/=",
    f"-ffile-prefix-map={os.getcwd()}/=",
]


def cuda_half() -> dict[str, list[str]]:
    """What the extension gains where there is nvcc. No GPU is needed, nor torch's own CUDA half."""
    # A torch that is built for the CPU does not look for CUDA.
    home = cpp_extension.CUDA_HOME or os.environ.get("CUDA_HOME", "/usr/local/cuda")
    sources = glob("csrc/cuda/*.cu")
    if SANITIZERS or not sources or not os.path.exists(os.path.join(home, "bin", "nvcc")):
        return {"sources": []}
    cpp_extension.CUDA_HOME = home
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0;10.0;12.0+PTX")
    # CUDAExtension would also link torch's CUDA libraries, which the stable ABI does without.
    return {
        "sources": sources + glob("csrc/cuda/*.cpp"),
        "include_dirs": [os.path.join(home, "include")],
        "library_dirs": [os.path.join(home, "lib64")],
        # CUDA's runtime is linked in, so that the extension loads where it is not installed.
        "libraries": ["cudart_static", "dl", "pthread", "rt"],
        "extra_link_args": [
            "-Wl,--exclude-libs,ALL",
            # The stream is a weak symbol of torch's CUDA half, which only libtorch leads to.
            "-Wl,--no-as-needed",
            "-ltorch",
        ],
    }


def extension():
    """One build, on the stable ABIs, serves torch >= 2.11 and Python >= 3.10."""
    cuda = cuda_half()
    sources = glob("csrc/*.cpp") + glob("csrc/cpu/**/*.cpp", recursive=True)
    sources += cuda.pop("sources")
    headers = set(glob("csrc/**/*.*", recursive=True)) - set(sources)
    return cpp_extension.CppExtension(
        "eefast._C",
        sorted(sources),
        depends=sorted(headers),
        define_macros=[("TORCH_TARGET_VERSION", "0x020b000000000000")],  # 2.11
        extra_compile_args={
            "cxx": [*OPTIMISATION, *SANITIZERS, "-std=c++17", *HOST_FLAGS],
            "nvcc": ["-O3", "-std=c++17", "-Xcompiler", ",".join(HOST_FLAGS)],
        },
        extra_link_args=SANITIZERS + cuda.pop("extra_link_args", []),
        py_limited_api=True,
        **cuda,
    )


extensions = [extension()] if has_compiler() else []
packages = find_packages(include=["eefast", "eefast.*", "eefast_cli"])
if os.path.exists("kernels/__init__.py"):
    packages.append("eefast.kernels")

setup(
    packages=packages,
    package_dir={
        "eefast": "eefast",
        "eefast_cli": "eefast_cli",
        "eefast.kernels": "kernels",
    },
    ext_modules=extensions,
    cmdclass={"build_ext": cpp_extension.BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if extensions else {},
)
