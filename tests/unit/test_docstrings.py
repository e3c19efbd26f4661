"""Every public name says what it is, takes, gives and refuses, and shows an example that runs.

What is asked for:

- of everything: a sentence or a formula first, sections in one order, errors with their reason;
- of what takes arguments: each of them described, tensors with their shape, what is returned
  (unless that is None), and what is raised (unless all arguments are flags, which cannot be wrong);
- of everything but methods and properties, which the examples of their class call: an example;
- of what comes from CirculantAttention.jl or from a paper: that source.

Of the members of Circulant, most of which do what a tensor's do, the sentence is enough.

`test_doctests.py` runs the examples.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import torch
from test_public import OF_JULIA

import circulant_attention
from circulant_attention import Circulant, denoising, distributed, nn

SECTIONS = ["Args", "Returns", "Raises", "Note", "Example", "References"]
OPERATORS = ["__eq__", "__getitem__", "__matmul__"]
# What a text about a tensor says: its shape in symbols, or of what else it has the shape.
SHAPE = re.compile(r"``\(|\bshape\b|\b0-d\b|\b1-d\b")
FORMULA = """
    DotSimilarity DistanceSimilarity Circulant Circulant.apply circulant_similarity softmax
    circulant_attention circulant_transposed_attention circulant_mh_transposed_attention dot
    denoising.nonlocal_means denoising.patches nn.AxialAttention nn.AxialImageTransformer
    nn.AxialPositionalEmbedding nn.CirculantAttention2d nn.CirculantTransformerBlock nn.CosAttn2d
    nn.CosMHSA nn.FusedAttention nn.NonlocalDenoiser nn.SelfAttention
""".split()


def is_ours(thing: object) -> bool:
    return getattr(thing, "__module__", "").startswith("circulant_attention")


def members(cls: type) -> list[str]:
    """The public methods and properties that the package defines for a class."""
    names = {name for base in cls.__mro__ if is_ours(base) for name in vars(base)}
    chosen = OPERATORS if cls is Circulant else []
    return sorted(
        name
        for name in names
        if not name.startswith("_") or name in chosen
        if isinstance(member := inspect.getattr_static(cls, name), property)
        or inspect.isroutine(member)
    )


NAMES = {
    **{name: getattr(circulant_attention, name) for name in circulant_attention.__all__},
    **{f"nn.{name}": getattr(nn, name) for name in nn.__all__},
    **{f"distributed.{name}": getattr(distributed, name) for name in distributed.__all__},
    **{
        f"denoising.{name}": value
        for name, value in vars(denoising).items()
        if inspect.isfunction(value)
    },
}
MEMBERS = {
    f"{path}.{name}": inspect.getattr_static(thing, name)
    for path, thing in NAMES.items()
    if inspect.isclass(thing)
    for name in members(thing)
}


def docstring(thing: object) -> str:
    return inspect.getdoc(getattr(thing, "__func__", thing)) or ""


def sections(text: str) -> dict[str, str]:
    """The sections of a docstring in their order, dedented."""
    found = re.findall(r"^([A-Z]\w+):\n((?:    .*(?:\n|$)|\n)+)", text, re.MULTILINE)
    return {title: inspect.cleandoc(body) for title, body in found}


def entries(section: str) -> dict[str, str]:
    """The entries ``name: text`` of a section, also those of a list within it."""
    entry = r"^(?:    - )?[`*\\]*(\w+)`*: (\S.*(?:\n(?! *- )(?: +.*|$))*)"
    return dict(re.findall(entry, section, re.MULTILINE))


def signature(thing: object) -> inspect.Signature:
    """What is called: a class, a function, a method, or an object such as ``mh``."""
    if not inspect.isclass(thing) and not inspect.isroutine(thing):
        thing = type(thing).__call__
    return inspect.signature(thing)


def violations(path: str, thing: object) -> Iterator[str]:
    """The rules that a docstring breaks."""
    text = docstring(thing)
    found, first = sections(text), text.split("\n\n")[0]
    if not (re.match(r"r?[A-Z0-9`:]", first) and re.search(r"[.;]$", first)):
        yield "begins with no sentence"
    if list(found) != [title for title in SECTIONS if title in found]:
        yield f"sections out of order: {list(found)}"
    for error, reason in entries(found.get("Raises", "")).items():
        if not (error.endswith("Error") and reason.startswith("If ")):
            yield f"an error without a reason: {error}: {reason}"
    if path.startswith("Circulant."):
        return
    if path not in MEMBERS and ">>> " not in found.get("Example", ""):
        yield "no example"
    if path in FORMULA and not re.search(r"\.\. math::|:math:`", text):
        yield "no formula"
    yield from wrong_sources(path, found.get("References", ""))
    yield from wrong_arguments(path, thing, found)
    if path.startswith("nn.") and path not in MEMBERS:
        name, example = path.removeprefix("nn."), found.get("Example", "")
        made = re.findall(rf"(\w+) = {name}\(", example)
        if not re.search("|".join([rf"{name}\(.*\)\(", *(rf"\b{x}\(" for x in made)]), example):
            yield "its example does not call it"


def wrong_sources(path: str, source: str) -> Iterator[str]:
    if path in OF_JULIA:
        if not re.search(r"``.+`` in CirculantAttention\.jl, ``src/\w+\.jl``", source):
            yield "names no source in Julia"
    elif path == "denoising.nonlocal_means" or (path.startswith("nn.") and path not in MEMBERS):
        if not re.search(r"\b(19|20)\d\d\b|arXiv:\d|\.jl", source):
            yield "names no source"


def wrong_arguments(path: str, thing: object, found: dict[str, str]) -> Iterator[str]:
    if isinstance(thing, property) or thing is circulant_attention.AbstractSimilarity:
        return
    called = signature(thing)
    parameters = [p for p in called.parameters.values() if p.name not in ("self", "cls")]
    described = entries(found.get("Args", ""))
    for parameter in parameters:
        told = described.get(parameter.name, "")
        if not told:
            yield f"{parameter.name} is not described"
        elif re.search(r"\bTensor\b", str(parameter.annotation)) and not SHAPE.search(told):
            yield f"the shape of {parameter.name} is missing: {told}"
    extra = set(described) - {p.name for p in parameters}
    if extra and not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        yield f"describes {sorted(extra)}, which it does not take"
    gives = not inspect.isclass(thing) and called.return_annotation not in ("None", "NoReturn")
    # What stands before a colon in Returns is shown as the type.
    if parameters and gives and not re.match(r"(?!.*?: ).", found.get("Returns", "")):
        yield "the result is not described, or by a type"
    if any(p.annotation != "bool" for p in parameters):
        if not found.get("Raises"):
            yield "no errors"


def test_every_docstring_follows_the_rules():
    everything = {**NAMES, **MEMBERS}
    found = [
        f"{path}: {what}" for path in everything for what in violations(path, everything[path])
    ]
    assert not found, "\n".join(found)


def test_the_rules_find_what_is_missing():
    def bare(x: torch.Tensor, n: int) -> int:
        """No full stop"""

    def typed(x: torch.Tensor) -> int:
        """Sentence.

        Raises:
            Error: Always.

        Args:
            x: A tensor.
            y: A number.

        Returns:
            int: A number.
        """

    wanted = ["begins with no sentence", "no example", "x is not described", "n is not described"]
    assert [*violations("f", bare)] == [
        *wanted,
        "the result is not described, or by a type",
        "no errors",
    ]
    told = " ".join(violations("dot", typed))
    for what in ("out of order", "no formula", "no source", "shape of x", "['y']", "by a type"):
        assert what in told
    assert "an error without a reason" in told


def test_the_operator_says_how_it_is_written():
    text = docstring(circulant_attention.mh)
    assert "mh(A, x)" in text
    assert "A @ mh @ x" in text


def test_the_walk_finds_what_there_is():
    assert {"Circulant.window_image", "Circulant.values", "nn.CosAttn1d.forward"} <= {*MEMBERS}
    assert len(NAMES) >= 45
    assert len(MEMBERS) >= 90
