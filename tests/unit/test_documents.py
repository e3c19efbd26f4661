"""The README runs and proves its claims, links lead somewhere, and the API page is complete."""

import inspect
import itertools
import re
from pathlib import Path

import pytest
import torch

import circulant_attention
import circulant_attention.denoising
import circulant_attention.nn

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/guide/*.md")),
    *sorted(ROOT.glob("benchmarks/**/*.md")),
    *sorted(ROOT.glob("parity/*.md")),
]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_readme_program_gives_what_its_comments_say() -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {}
    checked = 0
    for block in python_blocks(ROOT / "README.md"):
        exec(block, names)
        # An expression on a line of its own is followed by its value.
        for expression, value in re.findall(r"^([^=#\n]+?|.*\))  +# (.+)$", block, re.MULTILINE):
            result = eval(expression, names)
            assert (tuple(result) if isinstance(result, torch.Size) else result) == eval(value)
            checked += 1
    assert checked == 6


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
def test_compiler_makes_no_sparse_tensor() -> None:
    def values(x: torch.Tensor) -> torch.Tensor:
        return circulant_attention.circulant(3, x).data.values()

    compiled = torch.compile(values, fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Sparse tensor"):
        compiled(torch.zeros(1, 1, 5))


def test_links_lead_to_files() -> None:
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", page.read_text())
        if not target.startswith(("http://", "https://"))
    ]
    assert len(links) > 50
    assert [link for link in links if not (link[0].parent / link[1]).exists()] == []


def table_after(text: str, line: str) -> list[list[str]]:
    """The rows of the first Markdown table behind a line, without its head."""
    lines = text.partition(line)[2].splitlines()
    rows = itertools.takewhile(
        lambda row: row.startswith("|"), itertools.dropwhile(lambda row: row[:1] != "|", lines)
    )
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows][2:]


def test_every_claim_of_the_readme_links_to_what_shows_it() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = r"\]\((tests|parity|benchmarks)/"
    features = table_after(readme, "## What it does")
    assert len(features) >= 10
    for claim, proof in features:
        assert re.search(shown, proof), claim
    peers = table_after(readme, "Beside its peers")
    assert len(peers) >= 10
    for subject, ours, *theirs in peers:
        assert len(theirs) == 4
        assert ours == "no" or re.search(shown, ours), subject


def test_every_public_name_is_on_the_api_page() -> None:
    listed = re.findall(r"^   (\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(circulant_attention.__all__)


def test_every_module_is_on_its_api_page() -> None:
    page = (ROOT / "docs" / "api-modules.md").read_text()
    modules, _, functions = page.partition("circulant_attention.denoising")
    listed = re.findall(r"^   (\w+)$", modules, re.MULTILINE)
    assert sorted(listed) == sorted(circulant_attention.nn.__all__)
    public = {
        name
        for name, value in vars(circulant_attention.denoising).items()
        if inspect.isfunction(value)
    }
    assert set(re.findall(r"^   (\w+)$", functions, re.MULTILINE)) == public
