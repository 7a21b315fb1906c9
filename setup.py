"""The part of packaging that pyproject.toml cannot say: the wheel carries models/ as rcccodec/_models."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["rcccodec", "rcccodec.*"]), "rcccodec._models"],
    package_dir={"rcccodec._models": "models"},
)
