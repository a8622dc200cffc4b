"""The kinds of files that a graph is written as: .pt2 for torch, .onnx for ONNX Runtime."""

import io
import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from ppl_vae.backends.pyro.capture import first_line, quiet
from ppl_vae.errors import ProgramError, UsageError

ABOUT = "ppl_vae.json"

Arrays = Mapping[str, np.ndarray]
Call = Callable[[Arrays], dict[str, np.ndarray]]


def check_kind(suffix: str) -> None:
    """Refuse a kind of file that this installation cannot write."""
    if suffix not in KINDS:
        raise UsageError(f"a graph is no {suffix or 'file without a suffix'}: name it {' or '.join(KINDS)}")
    lacking = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if suffix == ".onnx" and lacking:
        raise UsageError(f".onnx needs {', '.join(lacking)}: pip install 'ppl-vae[onnx]'")


def pt2(graph: ExportedProgram, about: Mapping[str, Any]) -> tuple[bytes, Call]:
    """Return a graph as torch keeps it, and that content as a function of arrays."""
    file = io.BytesIO()
    torch.export.save(graph, file, extra_files={ABOUT: json.dumps(about)})
    # What is compared is what is written.
    module = torch.export.load(io.BytesIO(file.getvalue())).module()

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        outputs = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return file.getvalue(), call


def onnx(graph: ExportedProgram, about: Mapping[str, Any]) -> tuple[bytes, Call]:
    """Return a graph as ONNX, and that content as a function of arrays.

    Raises
    ------
    UsageError
        For draws of random numbers.
    ProgramError
        For an operation that ONNX does not have.
    """
    import onnxruntime

    if _draws(graph):
        raise UsageError(f"{about['what']} draws random numbers, which .onnx cannot repeat: write a .pt2")
    outputs = list(about["outputs"])
    try:
        content = _converted(graph, about)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ProgramError(
            f"{about['what']} cannot be written as .onnx ({first_line(error)}): write a .pt2"
        ) from error

    def call(inputs: Arrays) -> dict[str, np.ndarray]:
        values = session.run(outputs, {name: np.ascontiguousarray(value) for name, value in inputs.items()})
        return dict(zip(outputs, values, strict=True))

    return content, call


def _converted(graph: ExportedProgram, about: Mapping[str, Any]) -> bytes:
    file, inputs = io.BytesIO(), list(about["inputs"])
    with quiet():
        made = torch.onnx.export(
            graph,
            dynamo=True,
            verbose=False,
            input_names=inputs,
            output_names=list(about["outputs"]),
            dynamic_shapes={name: {0: "rows"} for name in inputs},
        )
        made.model.metadata_props[ABOUT] = json.dumps(about)
        made.save(file)
    return file.getvalue()


def _draws(graph: ExportedProgram) -> bool:
    """Return whether a call takes random numbers. An operator's name does not say it: dropout and recurrent
    layers are named as random and take none at rest.
    """
    args, named = graph.example_inputs
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        graph.module()(*args, **named)
        return not torch.equal(before, torch.get_rng_state())


KINDS = {".pt2": pt2, ".onnx": onnx}
