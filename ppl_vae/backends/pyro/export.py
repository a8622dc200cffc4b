"""Encoder, decoder and bound of a trained program as graphs that run without it."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.backends.pyro.capture import NotCaptured, capture, untouched
from ppl_vae.backends.pyro.evaluate import on_device
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.backends.pyro.predictive import (
    Centres,
    at_rest,
    centre,
    guide_trace,
    latents_of,
    shared_latents,
)
from ppl_vae.backends.pyro.terms import elbo_terms, is_latent_or_observed, is_local, latent_sites, traces
from ppl_vae.errors import ProgramError

ABOUT = "ppl_vae.json"  # the file within a .pt2 that tells what it is


class Encode(nn.Module):
    """Rows to the centres of their latents by site, [N, *event], and the numbers of codes."""

    def __init__(self, bound: nn.Module, batch: Mapping[str, Tensor]):
        super().__init__()
        self.bound = bound

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with self.bound.unscaled():
            return latents_of(guide_trace(self.bound, batch, draw=False))


class Decode(nn.Module):
    """Latents by site (and the fields that the program takes beside) to the centre of the likelihood by
    field, [N, *event]. Global latents are the guide's.
    """

    def __init__(self, bound: nn.Module, batch: Mapping[str, Tensor]):
        super().__init__()
        self.bound = bound
        fields = {name: value[:1] for name, value in batch.items() if name in bound.fields}
        probe = poutine.trace(bound.model).get_trace(n=1, **fields)
        for name, value in shared_latents(bound, probe, fields, draw=False).items():
            self.register_buffer(f"shared_{name}", value.detach().clone())

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        fields = {name: value for name, value in batch.items() if name in self.bound.fields}
        given = {name: value for name, value in batch.items() if name not in fields}
        given |= {name.removeprefix("shared_"): value for name, value in self.named_buffers(recurse=False)}
        model = Centres()(poutine.condition(self.bound.model, data=given))
        with self.bound.unscaled():
            trace = poutine.trace(model).get_trace(n=next(iter(batch.values())).shape[0], **fields)
        sites = trace.nodes.items()
        return {
            name: centre(site["fn"])
            for name, site in sites
            if is_latent_or_observed(site) and is_local(site) and name in self.bound.fields
        }


class Score(nn.Module):
    """Rows to the terms of the plain bound in nats, [N]: elbo, rate and distortion, from one draw."""

    def __init__(self, bound: nn.Module, batch: Mapping[str, Tensor]):
        super().__init__()
        self.bound = bound

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        terms = elbo_terms(*traces(self.bound, batch))
        rate = sum(terms.kl.values(), start=torch.zeros_like(terms.log_likelihood))
        rate = rate + sum(terms.kl_global.values(), start=0.0) / (self.bound.num_data or 1)
        return {
            "elbo": terms.log_likelihood - rate,
            "rate": rate,
            "distortion": -terms.log_likelihood,
        }


KINDS = {"encode": Encode, "decode": Decode, "score": Score}
Call = Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]


def exported(
    bound: nn.Module, what: str, rows: Mapping[str, np.ndarray], about: Mapping[str, Any], form: str = ".pt2"
) -> bytes:
    """Return a file that computes what a bound program does, once it was seen to do so on some rows.

    Parameters
    ----------
    bound : Bound
    what : str
        encode, decode or score.
    rows : dict of str to array
        A few rows; a single one is taken twice.
    about : dict
        What else the file should tell of itself.
    form : str
        .pt2 (`torch.export.load`) or .onnx.

    Raises
    ------
    ProgramError
        For a plain program, one that cannot be captured, or a file that computes something else.
    """
    if isinstance(bound, PlainBound):
        raise ProgramError(
            "a plain program cannot be exported: only a declared Program has its weights in it"
        )
    rows = {
        name: np.resize(values, (max(len(values), 2), *values.shape[1:])) for name, values in rows.items()
    }
    bound = copy.deepcopy(bound).cpu().requires_grad_(False)
    with at_rest(bound, 0):
        batch = {name: value.clone() for name, value in on_device(bound, rows, slice(None)).items()}
        module = KINDS[what](bound, batch)
        given = batch if what != "decode" else _latents(bound, batch)
        try:
            graph = _lean(module, bound, given)
        except NotCaptured as reason:
            raise ProgramError(f"{bound.program.name} cannot be exported: {reason}") from None
        told = dict(about) | {"what": what, "inputs": _shapes(given), "outputs": _shapes(module(given))}
        content = _pt2(graph, told) if form == ".pt2" else _onnx(graph, given, module(given))
        _compare(module, _reader(content, form), given, form)
    return content


def _latents(bound: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a decoder takes, for some rows: their latents and the fields that are not observed."""
    trace = guide_trace(bound, batch, draw=False)
    latents = {name: value for name, value in latents_of(trace).items() if name in latent_sites(trace)}
    model = poutine.trace(poutine.replay(bound.model, trace=trace)).get_trace(**batch)
    seen = [name for name, site in model.nodes.items() if site["type"] == "sample" and site["is_observed"]]
    return latents | {name: value for name, value in batch.items() if name not in seen}


def _lean(module: nn.Module, bound: nn.Module, batch: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """Return the graph, without the numbers of weights that it does not use."""
    exported = capture(module, bound, batch).exported
    signature = exported.graph_signature
    names = signature.inputs_to_parameters | signature.inputs_to_buffers
    idle = {names[node.name] for node in exported.graph.nodes if node.name in names and not node.users}
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if name in idle:
            value.data = value.data.new_empty(0)
    return capture(module, bound, batch).exported


def _shapes(arrays: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    return {
        name: {"shape": ["rows", *value.shape[1:]], "dtype": str(value.dtype).removeprefix("torch.")}
        for name, value in arrays.items()
    }


def _pt2(graph: torch.export.ExportedProgram, about: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(graph, buffer, extra_files={ABOUT: json.dumps(about)})
    return buffer.getvalue()


def _onnx(
    graph: torch.export.ExportedProgram, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]
) -> bytes:
    buffer, names = io.BytesIO(), {"input_names": list(batch), "output_names": list(out)}
    try:
        with warnings.catch_warnings():
            # The exporter uses what torch has deprecated, and tells of operations that no program has.
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            torch.onnx.export(graph, dynamo=True, verbose=False, **names).save(buffer)
    except torch.onnx.errors.OnnxExporterError as error:
        line = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ProgramError(f"the program has no form in ONNX: {line}") from None
    return buffer.getvalue()


def _reader(content: bytes, form: str) -> Call:
    """Return the function in a file, as somebody who was given it would call it."""
    if form == ".pt2":
        module = torch.export.load(io.BytesIO(content)).module()
        return lambda batch: module({name: torch.from_numpy(value) for name, value in batch.items()})
    import onnxruntime

    session = onnxruntime.InferenceSession(content)
    names = [out.name for out in session.get_outputs()]
    return lambda batch: dict(zip(names, session.run(None, dict(batch)), strict=True))


def _compare(module: nn.Module, call: Call, batch: Mapping[str, Tensor], form: str) -> None:
    """Refuse a file that does not do what the program does: for all rows, for two and for one."""
    for rows in (len(next(iter(batch.values()))), 2, 1):
        part = {name: value[:rows] for name, value in batch.items()}
        with untouched(module):
            torch.manual_seed(rows)
            expected = module(part)
            torch.manual_seed(rows)
            found = call({name: value.numpy() for name, value in part.items()})
        for name, value in expected.items():
            if not np.allclose(np.asarray(found[name]), value.numpy(), rtol=1e-4, atol=1e-4):
                raise ProgramError(
                    f"the exported {form} computes another {name!r} than the program: not written"
                )
