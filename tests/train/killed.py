"""Trains with momentum, BatchNorm and Dropout until killed; saves a checkpoint and prints a line at each evaluation."""

import sys
import time
from pathlib import Path

import jax
import numpy as np
from conftest import a_dataset

import jaxnet
from jaxnet.train.checkpoints import Checkpoints, identity

STEPS, EVERY = 600, 20


def main(folder: Path, pause: float) -> None:
    data = a_dataset(np.random.default_rng(0))
    net = jaxnet.multi_layer_net(12, [8], 5, batch_norm=True, dropout=0.2)
    params = net.init(jax.random.key(0), "he")
    batches = jaxnet.draw_batches(jax.random.key(1), len(data.x_train), 10, STEPS)
    settings = {"optimizer": "momentum", "key": jax.random.key(2)}
    saved = Checkpoints(
        folder / "checkpoints", lambda: identity(net, data, batches, np.float32, {"rate": 0.01}), seconds=0
    )
    resume = saved.latest(jaxnet.initial_state(net, params, **settings), lambda message: print(message, flush=True))
    for progress in jaxnet.iter_fit(net, params, data, batches, eval_every=EVERY, resume=resume, **settings):
        saved.offer(progress)
        print(f"step {int(progress.state.step)}", flush=True)
        time.sleep(pause)
    saved.finish()
    leaves = jax.tree.leaves(
        progress._replace(state=progress.state._replace(key=jax.random.key_data(progress.state.key)))
    )
    np.savez(folder / "end.npz", *leaves)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
