"""A run that somebody kills: momentum, running statistics, masks; a checkpoint at every stage, and a line as well."""

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
    settings = {"optimizer": "momentum", "eval_every": EVERY, "key": jax.random.key(2)}
    saved = Checkpoints(
        folder / "checkpoints", lambda: identity(net, data, batches, np.float32, {"rate": 0.01}), seconds=0
    )
    resume = saved.latest(jaxnet.initial_state(net, params, **settings), lambda told: print(told, flush=True))
    for stage in jaxnet.stages(net, params, data, batches, resume=resume, **settings):
        saved.offer(stage)
        print(f"step {int(stage.state.step)}", flush=True)
        time.sleep(pause)
    saved.finish()
    leaves = jax.tree.leaves(stage._replace(state=stage.state._replace(key=jax.random.key_data(stage.state.key))))
    np.savez(folder / "end.npz", *leaves)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
