"""A verb of a program as one file: captured as a graph and compared with the program on rows."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ppl_vae.backends.pyro.capture import NotCaptured, first_line, quiet
from ppl_vae.backends.pyro.denormals import flushed
from ppl_vae.backends.pyro.graph_files import KINDS, check_kind
from ppl_vae.backends.pyro.graphs import VERBS, Verb
from ppl_vae.backends.pyro.passes import at_rest
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.faults import cause_of

SIZES = (5, 2, 1)
# Rows of the example that a graph is captured with. Rarely the size of anything else: torch would take one
# for the other.
EXAMPLE = 11
RTOL, ATOL = 1e-4, 1e-5

Arrays = Mapping[str, np.ndarray]


class File(NamedTuple):
    """A graph, ready to be written."""

    content: bytes
    about: dict[str, Any]  # verb, inputs and outputs by name with their types and shapes: in the file too
    difference: float  # the largest one between graph and program, over all outputs and sizes


def check_export(what: str, suffix: str) -> None:
    """Refuse an unknown verb, and a kind of file that this installation cannot write."""
    if what not in VERBS:
        raise UsageError(f"there is no graph of {what!r}: choose {', '.join(VERBS)}")
    check_kind(suffix)


def export(
    bound: nn.Module,
    rows: Arrays,
    what: str,
    suffix: str,
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> File:
    """Return a verb as the content of a file, once it has given the program's own numbers for some rows.

    Parameters
    ----------
    bound : Bound
    rows : dict of str to array
        At least one.
    what : {"encode", "decode", "score"}
    suffix : {".pt2", ".onnx"}
    about : dict, optional
        Plain values to keep in the file.
    seed : int
        Of the draws that graph and program are compared on.

    Raises
    ------
    UsageError
        For an unknown verb or kind of file, and draws in a kind of file that cannot repeat them.
    ProgramError
        Where the program is no graph, or the graph gives other numbers.
    """
    check_export(what, suffix)
    verb = VERBS[what](_at_rest(bound), _repeated(rows, SIZES[0]))
    expected = {n: verb.eager(_first(verb.example, n), seed) for n in SIZES}
    if not expected[1]:
        raise ProgramError(
            f"{_name(bound)} has nothing to {what}: latents lie in the plate of the rows, "
            "observed sites are called as the data's fields"
        )
    graph = _captured(verb)
    about = dict(about or {}) | {
        "what": what,
        "inputs": _described(verb.example),
        "outputs": _described(expected[1]),
    }
    content, call = KINDS[suffix](graph, about)
    return File(content, about, _difference(verb, call, expected, seed))


def _at_rest(bound: nn.Module) -> nn.Module:
    """Return a copy on the CPU, in eval mode and single precision, whose weights are constants."""
    copied = copy.deepcopy(bound).cpu().requires_grad_(False).eval()
    copied.autocast = None
    return copied


def _repeated(rows: Arrays, n: int) -> dict[str, np.ndarray]:
    return {name: value[np.arange(n) % len(value)] for name, value in rows.items()}


def _first(rows: Arrays, n: int) -> dict[str, np.ndarray]:
    return {name: value[:n] for name, value in rows.items()}


def _described(arrays: Arrays) -> dict[str, Any]:
    return {
        name: {"dtype": str(value.dtype), "shape": ["rows", *value.shape[1:]]}
        for name, value in arrays.items()
    }


def _captured(verb: Verb) -> ExportedProgram:
    # Zeros, not rows: the example stays in the file.
    example = {
        name: torch.from_numpy(np.zeros((EXAMPLE, *value.shape[1:]), value.dtype))
        for name, value in verb.example.items()
    }
    rows = torch.export.Dim("rows", min=1)
    shapes = {name: {0: rows} for name in example}
    try:
        with quiet(), at_rest(verb.bound, 0):
            graph = torch.export.export(verb, (), example, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise _not_captured(verb, NotCaptured(first_line(cause_of(error)))) from error
    return _pruned(graph)


def _name(bound: nn.Module) -> str:
    return type(bound.program).__name__


def _not_captured(verb: Verb, reason: NotCaptured) -> ProgramError:
    return ProgramError(
        f"{_name(verb.bound)} is no single graph ({reason}): its Python code may depend neither on "
        "values nor on the number of rows (x.shape[0] is a symbol, len(x) a number)"
    )


def _pruned(graph: ExportedProgram) -> ExportedProgram:
    """Take out what the outputs do not depend on, weights above all, and the paths of source files."""
    nodes, read = graph.graph, []
    nodes.eliminate_dead_code()
    for node in nodes.nodes:
        node.meta.pop("stack_trace", None)
    inputs = {node.name: node for node in nodes.nodes if node.op == "placeholder"}
    for spec in graph.graph_signature.input_specs:
        node = inputs[spec.arg.name]
        if spec.kind is InputKind.USER_INPUT or node.users:
            read.append(spec)
            continue
        nodes.erase_node(node)
        graph.state_dict.pop(spec.target, None)
        graph.constants.pop(spec.target, None)
    graph.graph_signature.input_specs[:] = read
    graph.graph_module.recompile()
    return graph


def _difference(
    verb: Verb, call: Callable[[Arrays], Any], expected: Mapping[int, Arrays], seed: int
) -> float:
    """Return the largest difference between graph and program; refuse one that is more than rounding."""
    largest = 0.0
    for n, theirs in expected.items():
        with flushed(), at_rest(verb.bound, verb.noise(seed)):
            ours = call(_first(verb.example, n))
        for name, value in theirs.items():
            apart = np.abs(ours[name].astype(np.float64) - value).max() if value.size else 0.0
            if not np.allclose(ours[name], value, RTOL, ATOL):
                raise ProgramError(
                    f"the graph gives other numbers than {_name(verb.bound)} "
                    f"({name!r} of {n} rows differs by {apart:.3g}): what a program keeps from call to call, "
                    "or draws by other means than torch, is not in it"
                )
            largest = max(largest, float(apart))
    return largest
