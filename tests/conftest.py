"""Fixtures that several test modules share."""

from pathlib import Path

import pytest
from tiny_models import write_tiny_models


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles ``grey`` and ``colour`` of tiny_models.py."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_models(folder)
    return folder


@pytest.fixture
def tiny(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with RCC_MODELS pointing to it."""
    monkeypatch.setenv("RCC_MODELS", str(model_folder))
    return model_folder
