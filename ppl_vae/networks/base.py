"""What a declared network is."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ppl_vae.declaration import Declaration


class Network(Declaration):
    """A network written once for all backends: its layers, and what it computes with them.

    Subclasses are frozen dataclasses that hold sizes and names, never arrays. Every axis left of those that a
    network works on (rows, particles) stays as it is.

    Attributes
    ----------
    single_precision : bool
        Compute in single precision or better, whatever precision the networks of a run have.
    added : tuple of str
        Buffers that weights of earlier versions do not have: there they keep their first values.
    """

    single_precision: ClassVar[bool] = False
    added: ClassVar[tuple[str, ...]] = ()

    def layers(self, nn: Any) -> dict[str, Any]:
        """Return the layers by name (an empty dict where there are none).

        Each is a layer of the backend's `nn`, another `Network`, a module of the backend's own library, a
        learned array (`nn.Parameter`), an array that the network itself changes (`nn.Buffer`), or a list of
        such, of lists too. The names are those of the weights that a run keeps.
        """
        return {}

    def start(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return first weights that the data decides, by their names within the network; its layers draw the
        others.

        Parameters
        ----------
        rows : dict of str to [N, ...]
            Some of the rows to train on, by field: NumPy arrays, masked where numbers are missing. A network
            `nn.Likelihood` gets the fields alone that its output scores.
        """
        return {}

    def apply(self, F: Any, net: Any, *inputs: Any) -> Any:
        """Abstract. Compute the output.

        Parameters
        ----------
        F : ppl_vae.functions.Functions
            The array functions of the backend.
        net : object
            The layers as attributes, to be called; learned arrays and buffers as arrays. `net.training` is
            True in train mode, `net.learns` where this call is also the one that may change buffers, which
            `net.keep(name=array)` does.
        *inputs : array
            With any axes in front.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no apply(self, F, net, ...)")


def started(
    weights: Mapping[str, Any],
    networks: Iterable[tuple[str, Network]],
    seen: Callable[[Network], Mapping[str, Any]],
) -> dict[str, Any]:
    """Return weights by name with those that data decides, of networks with what their names begin with; each
    gets the rows that `seen` gives for it.
    """
    found = dict(weights)
    for place, network in networks:
        for name, values in network.start(seen(network)).items():
            old = found[f"{place}.{name}"]
            found[f"{place}.{name}"] = values.astype(old.dtype).reshape(old.shape)
    return found
