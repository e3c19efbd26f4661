"""A checkpoint of GroupCDL-TIP, a folder with net.bson and config.yaml, as a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from examples.groupcdl import julia_bson
from examples.groupcdl.network import Config, GroupCDL

# Names of Julia that are other names here.
RENAMED = {"nlss_Δupdate": "nlss_update"}
PROJECTIONS = {"theta": "Wθ", "phi": "Wϕ", "alpha": "Wα", "beta": "Wβ"}  # noqa: RUF001
GAMMA = "γ"  # noqa: RUF001


class CheckpointError(ValueError):
    """A folder that is no checkpoint of this network."""


def load(folder: Path) -> GroupCDL:
    """The network of a folder.

    Raises:
        CheckpointError: If a file is missing, cannot be read, or belongs to another network.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder with net.bson and config.yaml")
    for name in ("net.bson", "config.yaml"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}")
    config = read_config(folder / "config.yaml")
    try:
        content = julia_bson.load(folder / "net.bson")
        return network(config, member(content, "net.bson", "ps"))
    except julia_bson.JuliaFileError as error:
        raise CheckpointError(str(error)) from None


def read_config(path: Path) -> Config:
    """The section ``net`` of a configuration."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("net"), dict):
        raise CheckpointError(f"{path} has no section net: it is no configuration of GroupCDL-TIP")
    section = {RENAMED.get(key, key): value for key, value in content["net"].items()}
    if section.pop("MoG", 0):
        raise CheckpointError(f"{path}: Gabor kernels (MoG > 0) are not supported")
    known = {field.name: field for field in dataclasses.fields(Config)}
    for key, value in section.items():
        if key not in known:
            raise CheckpointError(f"{path}: net has the unknown key {key}")
        if not fits(value, known[key].default):
            raise CheckpointError(f"{path}: net.{key} cannot be {value!r}")
    try:
        return Config(**section)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def fits(value: Any, default: Any) -> bool:
    """Whether a value of a configuration has the type of its default."""
    if default is True:
        return isinstance(value, bool | str)
    return type(value) is (int if default is None else type(default))


def network(config: Config, ps: dict[str, Any]) -> GroupCDL:
    """The network with the parameters of Julia, ``ps`` of Lux."""
    lista = member(ps, "ps", "lista")
    layers, where = lista, "ps.lista"
    if config.grouped:
        layers, where = member(lista, where, "layer"), "ps.lista.layer"
    steps = [member(layers, where, f"layer_{k}") for k in range(1, config.K + 1)]
    if len(layers) != config.K:
        raise CheckpointError(f"{where} has {len(layers)} layers, config.yaml {config.K}")

    # The degree of the thresholds is that of the file, as in Julia, not of the configuration.
    first = weight(steps[0], f"{where}.layer_1", "prox")
    net = GroupCDL(dataclasses.replace(config, d=first.shape[-1] - 1))
    with torch.no_grad():
        for k, (layer, step) in enumerate(zip(net.layers, steps, strict=True), 1):
            name = f"{where}.layer_{k}"
            for key in ("analysis", "synthesis"):
                fill(getattr(layer, key), weight(step, name, key), f"{name}.{key}", kernel)
            fill(layer.thresholds, weight(step, name, "prox"), f"{name}.prox", julia_bson.tensor)
        if net.nonlocal_similarity is not None:
            nlss = member(lista, "ps.lista", "nlss")
            for key, julia in PROJECTIONS.items():
                if (parameter := getattr(net.nonlocal_similarity, key)) is not None:
                    name = f"ps.lista.nlss.{julia}"
                    fill(parameter, weight(nlss, "ps.lista.nlss", julia), name, kernel)
            gamma = member(nlss, "ps.lista.nlss", GAMMA)
            fill(net.nonlocal_similarity.gamma, gamma, f"ps.lista.nlss.{GAMMA}", julia_bson.tensor)
        fill(net.dictionary, weight(ps, "ps", "dictionary"), "ps.dictionary", kernel)
    return net.eval()


def kernel(array: np.ndarray) -> Tensor:
    """A kernel of four dims."""
    if array.ndim != 4:
        raise CheckpointError(f"a kernel has {array.ndim} dims instead of 4")
    return julia_bson.kernel(array)


def member(content: Any, where: str, key: str) -> Any:
    """A member of a named tuple."""
    if not isinstance(content, dict) or key not in content:
        raise CheckpointError(f"{where} has no {key}: it is a checkpoint of another network")
    return content[key]


def weight(content: Any, where: str, key: str) -> Any:
    """The array ``weight`` of a member of a named tuple."""
    found = member(member(content, where, key), f"{where}.{key}", "weight")
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fc":
        raise CheckpointError(f"{where}.{key}.weight is no array of numbers")
    return found


def fill(parameter: Tensor, array: Any, name: str, convert: Callable[[np.ndarray], Tensor]) -> None:
    """Give a parameter the values of an array of Julia."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fc":
        raise CheckpointError(f"{name} is no array of numbers")
    values = convert(array)
    if values.shape != parameter.shape:
        expected, came = tuple(parameter.shape), tuple(values.shape)
        raise CheckpointError(f"{name} is {came}, but config.yaml makes it {expected}")
    if values.is_complex() != parameter.is_complex():
        raise CheckpointError(
            f"{name} is {values.dtype}, but config.yaml makes it {parameter.dtype}"
        )
    parameter.copy_(values)
