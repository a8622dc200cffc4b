"""Model files that the gallery tests write."""

TOY = '''"""A toy.

More.
"""
from dataclasses import dataclass

from ppl_vae import Program


@dataclass(frozen=True)
class Toy(Program):
    z_dim: int = 2
    width: int = 3

    def model(self, ppl, net, x=None):
        pass

    def guide(self, ppl, net, x):
        pass
'''
PLAIN = '''"""Two functions."""
import pyro

calls = []


def model(x):
    calls.append(x)


def guide(x):
    pass
'''


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
