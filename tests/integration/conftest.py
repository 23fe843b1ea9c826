"""Projects for the tests of `pull`: made once a worker, copied for each test."""

import shutil
from pathlib import Path

import pytest

from emotion_yolo.sources import pull
from tests.pull_builders import RecordedProgress, commit, make_project


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("template") / "project")


@pytest.fixture(scope="session")
def pulled_template(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    template = shutil.copytree(project_template, tmp_path_factory.mktemp("pulled") / "project")
    pull("sample", root=template, progress=RecordedProgress())
    commit(template, "sample")
    return template


@pytest.fixture
def project(project_template: Path, tmp_path: Path) -> Path:
    """A git and DVC repository with the dataset cards and a small sample, nothing pulled yet."""
    return shutil.copytree(project_template, tmp_path / "project")


@pytest.fixture
def pulled(pulled_template: Path, tmp_path: Path) -> Path:
    """A project whose sample is pulled and committed."""
    return shutil.copytree(pulled_template, tmp_path / "project")
