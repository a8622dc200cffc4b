"""What `ppl-vae train` does, by hand in torch alone: train, validate, keep the best, write it all.

    python benchmarks/peers/train_by_hand.py DATA.npz --epochs 20 --out DIR

Prints the bound on the validation rows and, where it compiles, the seconds that took, as JSON.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from peers.mlp import HandWrittenVAE

CHUNK = 1024  # rows of one validation batch
LOGGED = 50


def rows_of(path: Path) -> dict[str, Tensor]:
    """Return training and validation rows as float32 bits, [N, 784]."""
    with np.load(path) as arrays:
        found = {split: arrays[f"x_{split}"] for split in ("train", "valid")}
    return {split: torch.from_numpy(x.reshape(len(x), -1).astype(np.float32)) for split, x in found.items()}


@torch.no_grad()
def validated(model: HandWrittenVAE, x: Tensor) -> np.ndarray:
    """Return the ELBO of every row in nats, one draw each, [N]."""
    found = []
    for part in x.split(CHUNK):
        loc, raw = model.encoder(part).chunk(2, -1)
        scale = F.softplus(raw) + 1e-4
        logits = model.decoder(loc + scale * torch.randn_like(loc))
        distortion = F.binary_cross_entropy_with_logits(logits, part, reduction="none").sum(-1)
        rate = 0.5 * (loc.square() + scale.square() - 1).sum(-1) - scale.log().sum(-1)
        found.append(-(distortion + rate).double().numpy())
    return np.concatenate(found)


def written(path: Path, save: Callable[[Path], None]) -> None:
    """Replace a file, whole or not at all."""
    staged = path.with_name(path.name + ".new")
    save(staged)
    with open(staged, "rb") as file:
        os.fsync(file.fileno())
    os.replace(staged, path)


def train(options: argparse.Namespace) -> dict:
    """Train, and return what there is to tell."""
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)
    data, history, best, compiling = rows_of(options.data), [], None, None
    x = data["train"]
    model = HandWrittenVAE(x.shape[1], tuple(options.hidden), options.z_dim)
    with torch.no_grad():  # starts where the data is fitted without latents
        model.decoder[-1].bias.copy_(x.mean(0).clamp(0.05, 0.95).logit())
    optimizer = torch.optim.Adam(model.parameters(), options.lr, fused=True)
    call = torch.compile(model, dynamic=False) if options.compile else model
    total, step, order = torch.zeros(()), 0, torch.Generator().manual_seed(options.seed)
    for epoch in range(options.epochs):
        for rows in torch.randperm(len(x), generator=order).split(options.batch):
            started = time.perf_counter()
            batch = x.index_select(0, rows)
            # The odd last batch runs as it is: another size would be compiled for its own.
            loss = (call if len(rows) == options.batch else model)(batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            compiling = time.perf_counter() - started if compiling is None else compiling
            total, step = total + loss.detach(), step + 1
            if step % LOGGED == 0:
                history.append({"step": step, "epoch": epoch, "loss": float(total) / LOGGED})
                total = torch.zeros(())
        elbo = validated(model, data["valid"])
        history.append({"step": step, "epoch": epoch, "elbo_nats": float(elbo.mean())})
        if best is None or elbo.mean() > best[0]:
            best = (float(elbo.mean()), {name: value.clone() for name, value in model.state_dict().items()})
        with open(options.out / "metrics.jsonl", "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in history)
        history = []
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best": best[1]}
    state["rng"] = torch.get_rng_state()
    written(options.out / "state.pt", lambda path: torch.save(state, path))
    written(options.out / "weights.pt", lambda path: torch.save(best[1], path))
    return {"elbo_nats": best[0], "steps": step, "compile_seconds": compiling if options.compile else 0.0}


def main(argv: Sequence[str] | None = None) -> None:
    """Train and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--hidden", type=int, nargs="+", default=[400])
    parser.add_argument("--z-dim", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True)
    print(json.dumps(train(options)))


if __name__ == "__main__":
    main()
