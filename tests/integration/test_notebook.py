"""The notebook: it runs from a clone, in a kernel of its own, and shows what it says."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "notebooks/tour.ipynb"


@pytest.fixture(scope="module")
def tour() -> nbformat.NotebookNode:
    return nbformat.read(TOUR, as_version=4)


def test_it_is_committed_without_outputs(tour: nbformat.NotebookNode) -> None:
    cells = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    assert TOUR.stat().st_size < 20_000


def test_its_links_lead_somewhere(tour: nbformat.NotebookNode) -> None:
    links = [link for cell in tour.cells for link in re.findall(r"\]\(([^)#]+)", cell.source)]
    assert links
    assert all((TOUR.parent / link).exists() for link in links)


def test_it_runs_and_shows_faces_and_plots(tour: nbformat.NotebookNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    NotebookClient(tour, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in tour.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = {media for output in outputs for media in output.get("data", {})}
    assert {"text/html", "image/png"} <= shown
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "confidence 0." in printed
    claim = re.search(r"(\d+) faces: mean top probability (0\.\d+), named right (0\.\d+)", printed)
    assert claim is not None
    assert int(claim[1]) > 150
    assert float(claim[3]) < float(claim[2]) - 0.1  # as the text above the cell says
    assert not [output for output in outputs if output.get("name") == "stderr"]
