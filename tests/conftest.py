"""Fixtures that several test modules share."""

import signal
from pathlib import Path

import pytest
from tiny_latent import load_tiny, tiny_latent_model
from tiny_models import write_tiny_models

from rcccodec import cli
from rcccodec.latent.model import LatentModel


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


@pytest.fixture(scope="session")
def latent_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of tiny_latent.py."""
    return tiny_latent_model(tmp_path_factory.mktemp("latent") / "tiny")


@pytest.fixture(scope="session")
def latent_model(latent_folder: Path) -> LatentModel:
    """The same, loaded."""
    return load_tiny(latent_folder)


@pytest.fixture
def rcc(capfd: pytest.CaptureFixture[str]):
    """Run rcc in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C works in the tests and their children, also where it was ignored at the start (as by nohup)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
