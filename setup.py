"""Installs bert-toolkit: the stages as console commands, the core modules, the package."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "bert_toolkit/__init__.py").read_text())[1]

STAGES = [
    "create_pretraining_data",
    "extract_features",
    "run_classifier",
    "run_pretraining",
    "run_squad",
    "run_token_classifier",
]
# Console command -> module: the stages, and what stands in bert_toolkit/commands.
COMMANDS = {
    **{f"bert-{stage.replace('_', '-')}": stage for stage in STAGES},
    "bert-build-vocab": "bert_toolkit.commands.build_vocab",
    "bert-convert-checkpoint": "bert_toolkit.commands.convert_checkpoint",
    "bert-export-model": "bert_toolkit.commands.export_model",
    "bert-distill": "bert_toolkit.commands.distill",
    "bert-distill-tagger": "bert_toolkit.commands.distill_tagger",
    "bert-extend-vocab": "bert_toolkit.commands.extend_vocab",
    "bert-run-baselines": "bert_toolkit.commands.baselines",
}
CORE = ["tokenization", "modeling", "optimization"]

# Tried on each version in between (make test-matrix). 2.15 is the last TensorFlow that brings
# Estimator; later ones use its wheel through bert_toolkit/training/estimator_api.py.
TENSORFLOW = ">=2.12,<2.22"
# Not beside TensorFlow 2.13, which asks for an older typing-extensions than pydantic 2 does.
SERVE = [
    "fastapi>=0.110,<1",
    "uvicorn>=0.29,<1",
    "pydantic>=2,<3",
    "prometheus-client>=0.19,<1",
]

setup(
    name="bert-toolkit",
    version=VERSION,
    description="BERT from the command line: pretrain, classify, answer, tag, extract features",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9,<3.14",
    py_modules=STAGES + CORE,
    packages=find_packages(include=["bert_toolkit", "bert_toolkit.*"]),
    package_data={"bert_toolkit.pages": ["*.html", "*.css"]},
    install_requires=[
        f"tensorflow{TENSORFLOW}",
        "tensorflow-estimator>=2.12,<2.16",
        "numpy>=1.23,<3",
        "absl-py>=1.4,<3",
        "six>=1.16,<2",
        "google-crc32c>=1.5,<2",  # checksums of TFRecord files, without importing TensorFlow
        "orjson>=3.9,<4",  # JSON with arrays
        "safetensors>=0.4,<1",  # Hugging Face's weights
        "scikit-learn>=1.3,<2",  # metrics, baselines
        "scipy>=1.9,<2",
        "tqdm>=4.64,<5",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.14,<2.22"],
        "test": [
            "pytest>=7.4",
            "pytest-xdist>=3.3",
            "hypothesis>=6.90",
            "scikit-learn>=1.3,<2",
            "tokenizers>=0.15,<1",
            "cleanlab>=2.7,<3",
            "optuna>=4,<6",
            "h5py>=3.7,<4",
            "pyarrow>=12",
            "rjieba>=0.2,<1",
            f"tensorflow-text{TENSORFLOW}",
            "tensorboard>=2.12,<3",
            *SERVE,
            "httpx>=0.25,<1",
            "selenium>=4.15,<5",  # drives Debian's chromium, for the tests of pages
            "ruff==0.17.5",
            "mypy>=1.8,<3",
        ],
        "beam": ["apache-beam>=2.50,<2.78"],
        "features": ["h5py>=3.7,<4", "pyarrow>=12"],  # .hdf5 and .parquet
        "serve": [*SERVE, "httptools>=0.6,<1", "uvloop>=0.19,<1; sys_platform != 'win32'"],
        "text": [f"tensorflow-text{TENSORFLOW}"],  # exported models that take texts
        "plot": ["matplotlib>=3.6,<4"],
        "clean": ["cleanlab>=2.7,<3"],  # bert review-data; 2.7.1 is the last for Python 3.9
        "search": ["optuna>=4,<6"],  # bert search --method=optuna; on Python 3.9 to 3.13
        "vocab": ["tokenizers>=0.15,<1"],
        "zh": ["rjieba>=0.2,<1"],  # bert create-data --segmenter=jieba
        "bench": [
            "torch>=2.1",
            "transformers>=4.40",
            "sentence-transformers>=3",
            "tokenizers>=0.15,<1",
        ],
    },
    entry_points={
        "console_scripts": [
            "bert = bert_toolkit.__main__:main",
            *(f"{name} = {module}:entry" for name, module in COMMANDS.items()),
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        *[f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 14)],
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
