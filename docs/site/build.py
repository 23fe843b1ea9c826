"""Build the documentation site: `make docs` writes it to build/docs/site.

Pages lie in the site as in the repository, so that their relative links hold in both. The reference is generated from
the code. A link to a page, file or heading that is not there ends the build with 1, as does anything on a page that a
browser would fetch from elsewhere; links to other sites are not followed.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from reference import write_reference

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("zensical.toml")
SHOWN = (
    "*.md",
    "LICENSE",
    "params.yaml",
    "docs/*.*",
    "docs/adr/*.md",
    "models/release/MODEL_CARD.md",
    "datasets/sample/README.md",
    "dockerfiles/*.y*ml",
    "examples/*.py",
    "notebooks/*.ipynb",
)
"""Patterns of the files of the repository that the site has."""


class _Page(HTMLParser):
    """The links of a page, what a browser fetches for it, and the names that links may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to."""
        given = {name: value or "" for name, value in attrs}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        if "src" in given:
            self.fetched.append(given["src"])
        elif "href" in given:
            (self.fetched if tag == "link" else self.links).append(given["href"])


def findings(site: Path) -> Iterator[str]:
    """Yield a sentence for each dead link and each foreign asset of a built site.

    Zensical itself checks links between pages, but neither those to other files nor those in HTML.
    """
    pages = {path: _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site)
        for link in page.fetched:
            if urlsplit(link).netloc:
                yield f"{where}: a browser would fetch {link} from elsewhere; put the file into the site"
        if where.name == "404.html":  # shown at any depth: its links are relative to the root
            continue
        for link in (*page.links, *page.fetched):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target, name = urldefrag(link)
            file = (path.parent / unquote(urlsplit(target).path)).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_relative_to(site) or not file.is_file():
                yield f"{where}: {link} leads nowhere; correct it, or add the file to SHOWN in docs/site/build.py"
            elif name and file in pages and unquote(name) not in pages[file].names:
                yield f"{where}: {link}: the page has no such heading"


def build(root: Path, out: Path) -> int:
    """Build the site of the repository `root` in `out`, which is emptied first; returns an exit code."""
    pages, site = out / "pages", out / "site"
    shutil.rmtree(out, ignore_errors=True)
    for pattern in SHOWN:
        for file in sorted(root.glob(pattern)):
            (pages / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, pages / file.relative_to(root))
    write_reference(root, pages / "docs" / "reference")
    shutil.copy(CONFIG, out)
    zensical = str(Path(sys.executable).with_name("zensical"))
    command = [zensical, "build", "--strict", "--clean", "--config-file", CONFIG.name]
    done = subprocess.run(command, cwd=out, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr.partition("Traceback")[0])
        return 1
    found = list(findings(site.resolve()))
    sys.stderr.writelines(f"{sentence}\n" for sentence in found)
    sys.stdout.write(f"{site}: {len(list(site.rglob('*.html')))} pages\n")
    return bool(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="folder to write")
    given = parser.parse_args()
    raise SystemExit(build(given.root.resolve(), given.out.resolve()))
