# %% [markdown] lang="en"
r"""
# From a step to a compiled run

[The first notebook](back_propagation.md) derives every gradient of a network of two layers by hand. This one takes the
same network and asks how it is trained in JAX. We write a step as a pure function, compile it, compile all steps
together, and arrive at `jaxnet.fit`. Then we repeat a run, break one, sweep a grid, save a run, and let it read a digit of
our own.

You have read the first notebook, or know back propagation, and have heard of JAX. Plan half an hour. All times are printed
by the cells, on the machine that built this page. Yours will print others.
"""

# %% [markdown] lang="ko"
r"""
# 갱신 한 번에서 컴파일된 학습까지

[첫 번째 노트북](back_propagation.ko.md)에서는 두 층짜리 신경망의 기울기를 모두 손으로 유도했습니다. 이 노트북에서는 같은
신경망을 JAX로 어떻게 학습하는지 살펴봅니다. 갱신 한 번을 순수 함수로 쓰고, 컴파일하고, 모든 갱신을 한꺼번에 컴파일해서
`jaxnet.fit`에 이릅니다. 그다음에는 같은 학습을 되풀이해 보고, 망가뜨려 보고, 여러 설정을 한꺼번에 학습하고, 저장하고,
직접 그린 숫자를 읽게 합니다.

첫 번째 노트북을 읽었거나 역전파를 알고 있고, JAX라는 이름을 들어 보았으면 충분합니다. 반 시간쯤 잡으십시오. 시간은 모두
셀이 직접 재어 출력하며, 이 페이지를 만든 컴퓨터에서 잰 값입니다. 여러분의 컴퓨터에서는 다른 값이 나옵니다.
"""

# %%
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

import jaxnet
import numpy_ref
from jaxnet.data import own_images

plt.rc("figure", figsize=(6, 3.4), dpi=150)
plt.rc("figure.constrained_layout", use=True)
plt.rc("axes.spines", top=False, right=False)
plt.rc("axes", grid=True, axisbelow=True)
plt.rc("grid", color="0.9")
plt.rc("font", size=11)

data = jaxnet.data.digits()  # of scikit-learn, 8 by 8 pixels
print("training images", data.x_train.shape, data.x_train.dtype, " labels", data.t_train.shape, data.t_train.dtype)
print("test images    ", data.x_test.shape)

# %% [markdown] lang="en"
r"""
## A step is a pure function

A network in the first notebook was an object. It held its parameters, and training changed them in place. Here the
parameters are an argument: a dictionary of arrays. A step takes the old parameters and returns the new ones, together with
the loss. It changes nothing else. A function whose result depends on its arguments alone, and that has no other effect, is
called *pure*.
"""

# %% [markdown] lang="ko"
r"""
## 갱신 한 번은 순수 함수

첫 번째 노트북의 신경망은 객체였습니다. 객체가 매개변수를 가지고 있었고, 학습은 그것을 제자리에서 바꾸었습니다. 여기서는
매개변수가 인수입니다. 배열을 담은 사전입니다. 갱신은 이전 매개변수를 받아 새 매개변수와 손실을 함께 돌려줍니다. 그 밖에는
아무것도 바꾸지 않습니다. 이렇게 결과가 인수에만 달려 있고 다른 효과가 없는 함수를 *순수 함수*라고 합니다.
"""


# %%
def logits(params, x):  # (N, 64) -> (N, 10)
    hidden = jax.nn.relu(x @ params["Affine1"]["W"] + params["Affine1"]["b"])  # (N, 64) @ (64, 50) + (50,)
    return hidden @ params["Affine2"]["W"] + params["Affine2"]["b"]  # (N, 50) @ (50, 10) + (10,)


def loss(params, x, t):  # (N, 64), (N,) -> ()
    log_p = jax.nn.log_softmax(logits(params, x))  # (N, 10)
    return -jnp.take_along_axis(log_p, t[:, None], axis=1).mean()


def step(params, x, t):
    value, grads = jax.value_and_grad(loss)(params, x, t)
    return jax.tree.map(lambda p, grad: p - 0.1 * grad, params, grads), value


net = jaxnet.two_layer_net(64, 50, 10)
params = net.init(jax.random.key(0), 0.1)  # weights with standard deviation 0.1, biases 0
print(jax.tree.map(jnp.shape, params))

x, t = data.x_train[:100], data.t_train[:100]
new_params, value = step(params, x, t)
print("loss before the step", value, " after it", loss(new_params, x, t))

# %% [markdown] lang="en"
r"""
There is no backward pass in this code. `jax.grad` derives it from the forward pass. Is it the one that we derived by hand?
`numpy_ref` has the hand-written layers, and takes the same parameters. In double precision:
"""

# %% [markdown] lang="ko"
r"""
이 코드에는 역전파가 없습니다. `jax.grad`가 순전파에서 역전파를 이끌어 냅니다. 우리가 손으로 유도한 것과 같을까요?
`numpy_ref`에는 손으로 쓴 계층이 있고, 같은 매개변수를 받습니다. 배정밀도로 비교합니다.
"""

# %%
in_double = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
by_hand = numpy_ref.Network(numpy_ref.build_layers(net.description, in_double)).gradient(x.astype(np.float64), t)
with jax.enable_x64(True):
    automatic = jax.device_get(jax.grad(loss)(in_double, x.astype(np.float64), t))
for layer, leaves in by_hand.items():
    for leaf, grad in leaves.items():
        difference = abs(automatic[layer][leaf] - grad).max()
        print(f"{layer}.{leaf} {grad.shape!s:9} largest gradient {abs(grad).max():.2f}  difference {difference:.0e}")
        assert difference < 1e-14

# %% [markdown] lang="en"
r"""
They are equal up to the rounding of double precision.

## What `jit` does

`jax.jit(step)` returns a function that looks the same. When it is called for the first time, three things happen.
JAX *traces* the function: it runs the Python code once, with stand-ins that have a shape and a dtype but no values, and
notes each operation. It *lowers* these notes to the language of the compiler. Then XLA *compiles* them to machine
code. The three can be done one by one:
"""

# %% [markdown] lang="ko"
r"""
배정밀도의 반올림 오차 안에서 서로 같습니다.

## `jit`가 하는 일

`jax.jit(step)`은 겉보기에 똑같은 함수를 돌려줍니다. 이 함수를 처음 호출하면 세 가지 일이 일어납니다. 먼저 JAX가 함수를
*추적*합니다. 값은 없고 형상과 dtype만 있는 대역을 넣어 Python 코드를 한 번 실행하면서 연산을 하나하나 적어 둡니다. 다음에는
그 기록을 컴파일러의 언어로 *변환*합니다. 그러고 나면 XLA가 기계어로 *컴파일*합니다. 세 단계를 하나씩 실행할 수도 있습니다.
"""


# %%
def milliseconds(function):
    """Returns what a function returns, and how long it took."""
    started = time.perf_counter()
    result = jax.block_until_ready(function())  # JAX returns before the work is done
    return result, 1000 * (time.perf_counter() - started)


traced, trace_ms = milliseconds(lambda: jax.jit(step).trace(params, x, t))
lowered, lower_ms = milliseconds(traced.lower)
program, compile_ms = milliseconds(lowered.compile)
plain_ms = min(milliseconds(lambda: step(params, x, t))[1] for _ in range(5))
program_ms = min(milliseconds(lambda: program(params, x, t))[1] for _ in range(20))
print(f"trace {trace_ms:.0f} ms, lower {lower_ms:.0f} ms, compile {compile_ms:.0f} ms")
print(f"a step without jit {plain_ms:.2f} ms, compiled {program_ms:.2f} ms: {plain_ms / program_ms:.0f} times faster")
print(f"compilation pays after {(trace_ms + lower_ms + compile_ms) / (plain_ms - program_ms):.0f} steps")

# %% [markdown] lang="en"
r"""
A program is made for the shapes and dtypes that it was traced with. It is used again for arrays of the same kind,
whatever their values, and another kind needs another program. To see when that happens, we count. The line that counts is
a Python side effect: it runs when the function is traced, and never in the compiled program.
"""

# %% [markdown] lang="ko"
r"""
프로그램은 추적할 때의 형상과 dtype에 맞추어 만들어집니다. 같은 종류의 배열이라면 값이 무엇이든 다시 쓰이고, 다른 종류의
배열에는 다른 프로그램이 필요합니다. 언제 그런 일이 생기는지 세어 보겠습니다. 세는 줄은 Python의 부작용입니다. 함수를
추적할 때만 실행되고, 컴파일된 프로그램에서는 결코 실행되지 않습니다.
"""

# %%
traces = []


def counted_step(params, x, t):
    traces.append((x.shape, x.dtype.name))  # a side effect
    return step(params, x, t)


compiled_step = jax.jit(counted_step)
calls = {
    "first call": (x, t),
    "same arrays": (x, t),
    "other values": (1 - x, t),
    "fewer rows": (x[:32], t[:32]),
    "half precision": (x.astype(np.float16), t),
    "100 rows again": (x, t),
}
for name, batch in calls.items():
    before = len(traces)
    _, ms = milliseconds(lambda: compiled_step(params, *batch))
    print(f"{name:15} {ms:8.2f} ms  {'traced and compiled' if len(traces) > before else ''}")
print(f"{len(calls)} calls, {len(traces)} programs:", *traces)
assert len(traces) == 3

# %% [markdown] lang="en"
r"""
If the last batch of an epoch is smaller than the others, it costs a compilation. `jaxnet` therefore draws batches of equal
size.

Two more side effects that surprise people. A global variable is read during tracing, and its value is built into the
program. And what is appended to a list is a stand-in without a value:
"""

# %% [markdown] lang="ko"
r"""
에폭의 마지막 배치가 다른 배치보다 작으면 그 때문에 컴파일을 한 번 더 하게 됩니다. 그래서 `jaxnet`은 배치의 크기를 모두
같게 뽑습니다.

사람들이 놀라는 부작용이 두 가지 더 있습니다. 전역 변수는 추적할 때 읽히고, 그 값이 프로그램에 박혀 버립니다. 그리고
리스트에 덧붙인 것은 값이 없는 대역입니다.
"""

# %%
rate, appended = 0.1, []


@jax.jit
def descend(w, grad):
    appended.append(w)
    return w - rate * grad


print("rate 0.1:", descend(1.0, 1.0))
rate = 100.0
print("rate 100:", descend(1.0, 1.0), " the program still has 0.1")
print("appended in two calls:", appended)
assert descend(1.0, 1.0) == np.float32(0.9)

# %% [markdown] lang="en"
r"""
The rule behind both: what changes is an argument, and what is wanted is a result. Then there is nothing that tracing could
miss.

## A loop, and a compiled loop

Now 1,000 steps. All batches are drawn in advance, as the row numbers of the training images, $(1000, 100)$. The images
stay in one place, and each step gathers its own rows from them. First a Python loop around a compiled step:
"""

# %% [markdown] lang="ko"
r"""
두 경우 모두 규칙은 같습니다. 바뀌는 것은 인수로 넘기고, 필요한 것은 결과로 받습니다. 그러면 추적이 놓칠 것이 없습니다.

## 반복문과 컴파일된 반복문

이제 1,000번 갱신합니다. 배치는 모두 미리 뽑아 두는데, 훈련 이미지의 행 번호이고 형상은 $(1000, 100)$입니다. 이미지는 한
곳에 그대로 있고, 갱신할 때마다 자기 행만 모아 옵니다. 먼저 컴파일된 갱신을 Python 반복문으로 돌립니다.
"""

# %%
x_train, t_train = jax.device_put((data.x_train, data.t_train))  # (1442, 64), (1442,)
batches = jaxnet.draw_batches(jax.random.key(1), samples=len(x_train), batch_size=100, steps=1000)  # (1000, 100)
rows_of_steps = list(batches)


def step_on_rows(params, rows, x, t):
    return step(params, x[rows], t[rows])


compiled_step = jax.jit(step_on_rows)


def python_loop(params):
    losses = []
    for rows in rows_of_steps:
        params, value = compiled_step(params, rows, x_train, t_train)
        losses.append(value)
    return params, losses


looped_params, looped_losses = python_loop(params)
print(f"loss {looped_losses[0]:.3f} at the first step, {looped_losses[-1]:.3f} at the last")

# %% [markdown] lang="en"
r"""
`lax.scan` is a loop inside the program. It takes a function from (carry, input) to (carry, output). The carry is what
one step hands to the next, here the parameters. The inputs are the rows of `batches`, and the outputs are stacked, here the
losses. The loop goes through tracing once, not 1,000 times, and all steps are one call.
"""

# %% [markdown] lang="ko"
r"""
`lax.scan`은 프로그램 안의 반복문입니다. (이월값, 입력)을 받아 (이월값, 출력)을 돌려주는 함수를 인수로 받습니다. 이월값은 한
갱신이 다음 갱신에 넘겨주는 것이고, 여기서는 매개변수입니다. 입력은 `batches`의 행이고, 출력은 차곡차곡 쌓이는데 여기서는
손실입니다. 반복문의 몸통은 1,000번이 아니라 한 번만 추적하고, 모든 갱신이 호출 한 번으로 끝납니다.
"""


# %%
@jax.jit
def scan_loop(params, batches, x, t):
    return jax.lax.scan(lambda params, rows: step_on_rows(params, rows, x, t), params, batches)


(scanned_params, scanned_losses), first_ms = milliseconds(lambda: scan_loop(params, batches, x_train, t_train))
difference = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), looped_params, scanned_params)))
print(f"first call, with compilation: {first_ms:.0f} ms")
print(f"largest difference of the parameters after {len(batches)} steps: {difference:.0e}")
assert difference < 1e-3

loop_ms = min(milliseconds(lambda: python_loop(params))[1] for _ in range(5))
scan_ms = min(milliseconds(lambda: scan_loop(params, batches, x_train, t_train))[1] for _ in range(5))
print(f"Python loop {loop_ms:.0f} microseconds a step, scan {scan_ms:.0f}: ratio {loop_ms / scan_ms:.1f}")

# %% [markdown] lang="en"
r"""
(Milliseconds for 1,000 steps are microseconds for one.) Both do the same arithmetic. The ratio printed above is what it
costs to return to Python after each step. It is large because our network is small, and near 1 for a wide network, whose
products take much longer than a call.

Parameters are arguments and results, so is all of memory copied at each step? Not if the old ones are needed no more.
`scan` writes the new carry over the old one, as its need of memory shows. For a single step, the caller can give the old
arrays away, with `donate_argnums`:
"""

# %% [markdown] lang="ko"
r"""
(1,000번에 걸린 밀리초는 한 번에 걸린 마이크로초와 같습니다.) 둘은 똑같은 계산을 합니다. 위에 출력된 비율은 갱신할 때마다
Python으로 돌아오는 데 드는 비용입니다. 비율이 큰 것은 우리 신경망이 작기 때문이고, 행렬 곱이 호출보다 훨씬 오래 걸리는 넓은
신경망에서는 1에 가깝습니다.

매개변수가 인수이자 결과라면 갱신할 때마다 메모리를 전부 복사할까요? 이전 값이 더는 필요하지 않다면 그렇지 않습니다. `scan`은
새 이월값을 이전 이월값 위에 쓰고, 필요한 메모리의 양을 보면 알 수 있습니다. 갱신 한 번이라면 호출하는 쪽에서
`donate_argnums`로 이전 배열을 넘겨줄 수 있습니다.
"""

# %%
for steps in (10, 1000):
    memory = scan_loop.lower(params, batches[:steps], x_train, t_train).compile().memory_analysis()
    print(f"scan of {steps:4} steps: {memory.temp_size_in_bytes:,} bytes beside arguments and results")

donating_step = jax.jit(step_on_rows, donate_argnums=0)
for name, one_step in (("kept", compiled_step), ("donated", donating_step)):
    old = jax.tree.map(jnp.copy, params)
    address = old["Affine1"]["W"].unsafe_buffer_pointer()
    new, _ = one_step(old, batches[0], x_train, t_train)
    same = new["Affine1"]["W"].unsafe_buffer_pointer() == address
    print(f"{name:8} same memory: {same}, old parameters still readable: {not old['Affine1']['W'].is_deleted()}")

# %% [markdown] lang="en"
r"""
The training images are never copied: each call receives a reference to `x_train`. Had the function used `x_train` as a
global variable, as `rate` above, the images would have been built into the program.

## `fit`

`jaxnet.fit` is this loop for any network of the package and any optimizer of optax. It adds what a run needs:

- accuracies of all training and test images, every `eval_every` steps;
- the layout of the weights in memory, and the library for the products, that are fastest for the network;
- the rows of many steps, gathered together;
- a return to Python now and then, so that a run can be watched, saved and stopped, and the check that all values are
  finite.

The last value of a cell is shown. What `fit` returns shows itself as a table and curves:
"""

# %% [markdown] lang="ko"
r"""
훈련 이미지는 한 번도 복사되지 않습니다. 호출할 때마다 `x_train`을 참조로 넘겨받을 뿐입니다. 위의 `rate`처럼 함수가
`x_train`을 전역 변수로 썼다면 이미지가 통째로 프로그램에 박혔을 것입니다.

## `fit`

`jaxnet.fit`은 이 반복문을 이 패키지의 모든 신경망과 optax의 모든 최적화 기법에 쓸 수 있게 한 것입니다. 여기에 실제 학습에
필요한 것을 더합니다.

- `eval_every`번 갱신할 때마다 모든 훈련 이미지와 시험 이미지에 대한 정확도를 구합니다.
- 신경망에 가장 빠른 가중치의 메모리 배치와 행렬 곱 라이브러리를 고릅니다.
- 여러 번의 갱신에 쓸 행을 한꺼번에 모아 옵니다.
- 이따금 Python으로 돌아와서 학습을 지켜보고 저장하고 멈출 수 있게 하고, 모든 값이 유한한지 확인합니다.

셀의 마지막 값은 화면에 표시됩니다. `fit`이 돌려주는 값은 표와 곡선으로 나타납니다.
"""

# %%
run = jaxnet.fit(net, params, data, batches, optimizer="sgd", learning_rate=0.1, eval_every=100)
difference = abs(run.history.loss - np.asarray(scanned_losses)).max()
print(f"largest difference of the {len(run.history.loss)} losses from those of the scan: {difference:.0e}")
assert difference < 1e-3


def fit_without_evaluations():
    return jaxnet.fit(net, params, data, batches, learning_rate=0.1, eval_every=len(batches)).state.params


fit_without_evaluations()  # compiles
fit_ms = min(milliseconds(fit_without_evaluations)[1] for _ in range(5))
print(f"Python loop {loop_ms:.0f}, scan {scan_ms:.0f}, fit {fit_ms:.0f} microseconds a step")
run

# %% [markdown] lang="en"
r"""
The time of `fit` includes copying the data to the device and two evaluations of all images, before the first step and after
the last.

## Randomness by keys

NumPy's `np.random.normal()` returns something else at each call, because a hidden state changes. A pure function has none.
In JAX, randomness is an argument, a *key*: the same key gives the same numbers, in any order of calls and as often as you
like. New keys are made from old ones, by `split`, or by `fold_in` with a number such as that of the step.
"""

# %% [markdown] lang="ko"
r"""
`fit`의 시간에는 데이터를 장치로 복사하는 시간과, 첫 갱신 전과 마지막 갱신 뒤에 모든 이미지를 두 번 평가하는 시간이 들어
있습니다.

## 키로 다루는 난수

NumPy의 `np.random.normal()`은 숨은 상태가 바뀌기 때문에 호출할 때마다 다른 값을 돌려줍니다. 순수 함수에는 숨은 상태가
없습니다. JAX에서는 난수도 인수이며, 이를 *키*라고 합니다. 같은 키는 어떤 순서로 몇 번을 호출해도 같은 수를 줍니다. 새 키는 이전
키에서 만드는데, `split`을 쓰거나, 갱신 횟수 같은 수와 함께 `fold_in`을 씁니다.
"""

# %%
key = jax.random.key(3)
print("same key  ", jax.random.normal(key), jax.random.normal(key))
print("other keys", *(jax.random.normal(jax.random.fold_in(key, step)) for step in (0, 1)))


def seeded_run(seed):
    key_params, key_batches = jax.random.split(jax.random.key(seed))
    batches = jaxnet.draw_batches(key_batches, samples=len(data.x_train), batch_size=100, steps=1000)
    return jaxnet.fit(net, net.init(key_params, 0.1), data, batches)


first, second, third = seeded_run(0), seeded_run(0), seeded_run(1)


def same_bits(a, b):
    return all(np.array_equal(u, v) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


print("seed 0 twice, the same bits:", same_bits(first.state.params, second.state.params))
print("seed 0 and 1, the same bits:", same_bits(first.state.params, third.state.params))
assert same_bits((first.state.params, first.history), (second.state.params, second.history))

# %% [markdown] lang="en"
r"""
## A run that diverges

Now a deeper network, with four hidden layers, and a learning rate of 2, which is too high. In a Python loop one could look
at the loss at each step. A compiled loop does not stop for that. `fit` checks all values when it returns to Python, and if
one is not finite, it repeats the last steps one by one to find the first such value:
"""

# %% [markdown] lang="ko"
r"""
## 발산하는 학습

이번에는 은닉층이 네 개인 더 깊은 신경망에 너무 높은 학습률 2를 줍니다. Python 반복문이라면 갱신할 때마다 손실을 들여다볼 수
있습니다. 컴파일된 반복문은 그러려고 멈추지 않습니다. `fit`은 Python으로 돌아올 때 모든 값을 확인하고, 유한하지 않은 값이
있으면 마지막 갱신들을 하나씩 되풀이해서 처음으로 그렇게 된 값을 찾습니다.
"""

# %% alt_en="Loss of each step on a log axis: with rate 2 it climbs steeply and ends in a cross, with rate 0.1 it stays low" alt_ko="로그 축에 그린 갱신별 손실: 학습률 2에서는 가파르게 치솟다가 가위표로 끝나고, 0.1에서는 낮게 유지됨"
deep = jaxnet.multi_layer_net(64, (50, 50, 50, 50), 10)
deep_params = deep.init(jax.random.key(0), "he")
few_batches = batches[:50]
good = jaxnet.fit(deep, deep_params, data, few_batches, learning_rate=0.1)
try:
    jaxnet.fit(deep, deep_params, data, few_batches, learning_rate=2.0)
except jaxnet.DivergedError as error:
    diverged = error
print(diverged)

figure, axes = plt.subplots()
losses = diverged.history.loss
axes.semilogy(np.arange(1, len(losses) + 1), losses, color="black", marker="o", markersize=4, label="learning rate 2")
axes.semilogy(np.arange(1, 51), good.history.loss, color="black", linestyle="--", label="learning rate 0.1")
axes.semilogy(len(losses), losses[-1], color="black", marker="x", markersize=14, markeredgewidth=2)
axes.set_xlabel("step")
axes.set_ylabel("loss of the batch")
axes.legend(frameon=False)
plt.show()

# %% [markdown] lang="en"
r"""
The message names the step, the value, and a rate to try. `error.state` holds the parameters before that step and
`error.history` the losses until then, so nothing is lost. The cross in the picture is the last finite loss.

## A map of learning rates

Which learning rate, then, and which initial weights? Since a step is a pure function of both, `jax.vmap` can run it for
many values at once. `jaxnet.sweep` does that: all runs below are one program, on the same batches.
"""

# %% [markdown] lang="ko"
r"""
오류 메시지는 몇 번째 갱신에서 어느 값이 문제였는지 알려 주고, 시도해 볼 학습률을 제안합니다. `error.state`에는 그 갱신 직전의
매개변수가, `error.history`에는 그때까지의 손실이 들어 있어서 잃는 것이 없습니다. 그림의 가위표는 마지막으로 유한했던
손실입니다.

## 학습률의 지도

그렇다면 학습률은 얼마로 하고, 초기 가중치는 얼마로 해야 할까요? 갱신 한 번은 두 값의 순수 함수이므로, `jax.vmap`을 쓰면 여러
값에 대해 한꺼번에 실행할 수 있습니다. `jaxnet.sweep`이 그 일을 합니다. 아래의 학습은 모두 프로그램 하나이고, 같은 배치를
씁니다.
"""

# %% alt_en="Map of test accuracies: high in the middle, chance level where the initial weights or the rate are too small, low or crossed out where they are too large" alt_ko="시험 정확도의 지도: 가운데는 높고, 초기 가중치나 학습률이 너무 작으면 무작위 수준이며, 너무 크면 낮거나 가위표가 있음"
rates, init_stds = [0.001, 0.01, 0.1, 0.5, 2.0], [0.01, 0.05, 0.1, 0.3, 1.0]
result, ms = milliseconds(
    lambda: jaxnet.sweep(deep, data, batches[:200], learning_rates=rates, init_stds=init_stds, seeds=[0])
)
print(f"{result.diverged.size} runs in {ms / 1000:.1f} s with compilation, {result.diverged.sum()} diverged")
best = np.unravel_index(np.nanargmax(result.test_accuracy), result.test_accuracy.shape)
print(f"best: learning rate {rates[best[0]]}, initial standard deviation {init_stds[best[1]]}")
jaxnet.plots.sweep_map("64-50-50-50-50-10 on the digits, 200 steps", result)

# %% [markdown] lang="en"
r"""
Around the lit island lie three kinds of failure. With a small learning rate, too little happens in the time given. With
small initial weights, each of the five layers shrinks what passes through it, and neither signal nor gradient gets
through. Where both are large, the run diverges, or all ReLU die in a single leap and the network always guesses the same.
That last failure has finite values, so no check for `nan` would find it.

## A saved run

On the command line, `jaxnet train` checks the gradients of the network, trains it, and writes a folder. The cells below run
the commands as a terminal would, in a temporary folder.
"""

# %% [markdown] lang="ko"
r"""
밝은 섬 둘레에는 실패가 세 가지 있습니다. 학습률이 작으면 주어진 시간 안에 일어나는 일이 너무 적습니다. 초기 가중치가 작으면
다섯 계층이 저마다 지나가는 값을 줄여서, 신호도 기울기도 전해지지 않습니다. 둘 다 크면 학습이 발산하거나, 단 한 번의 도약으로
모든 ReLU가 죽어서 신경망이 언제나 같은 답만 냅니다. 이 마지막 실패에서는 값이 모두 유한하므로 `nan`을 찾는 검사로는 알아낼 수
없습니다.

## 저장된 학습

명령줄에서 `jaxnet train`은 신경망의 기울기를 검산하고, 학습하고, 결과를 폴더에 씁니다. 아래 셀은 임시 폴더에서 터미널과
똑같이 명령을 실행합니다.
"""

# %%
folder = tempfile.TemporaryDirectory()


def start(*arguments):
    print("$ jaxnet", *arguments)
    command = [sys.executable, "-m", "jaxnet", *arguments]
    return subprocess.Popen(
        command, cwd=folder.name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )


def finish(process, status=0):
    output, _ = process.communicate()
    print(output)
    assert process.returncode == status


finish(start("train", "--steps", "1500", "--eval-every", "500", "--output", "runs/wide"))

# %% [markdown] lang="en"
r"""
`jaxnet.load` reads such a folder back: the network, its parameters, and a summary. Nothing in the folder is executed.
"""

# %% [markdown] lang="ko"
r"""
`jaxnet.load`는 이런 폴더를 다시 읽어 신경망과 매개변수와 요약을 돌려줍니다. 폴더 안의 어떤 것도 실행하지 않습니다.
"""

# %%
wide = jaxnet.load(Path(folder.name, "runs", "wide"))
accuracy = jaxnet.accuracy(jaxnet.predict(wide.net, wide.params, wide.state, data.x_test), data.t_test)
print(f"test accuracy {accuracy:.4f}, in the summary {wide.summary['test_accuracy']:.4f}")
assert abs(accuracy - wide.summary["test_accuracy"]) < 1e-6

# %% [markdown] lang="en"
r"""
Now we start a second run, with a narrower network, and press Ctrl-C in the middle. The state of a run is nothing but the
arguments of its next step, so it can be written down and taken up again.
"""

# %% [markdown] lang="ko"
r"""
이번에는 더 좁은 신경망으로 두 번째 학습을 시작하고, 도중에 Ctrl-C를 누릅니다. 학습의 상태란 다음 갱신의 인수일 뿐이므로, 적어
두었다가 그대로 이어 갈 수 있습니다.
"""

# %%
process = start(
    "train", "--hidden", "10", "--steps", "20000", "--eval-every", "5000",
    "--checkpoint-seconds", "0", "--output", "runs/narrow")  # fmt: skip
checkpoints = Path(folder.name, "runs", "narrow", "checkpoints")
while process.poll() is None and not list(checkpoints.glob("*")):
    time.sleep(0.01)
process.send_signal(signal.SIGINT)  # Ctrl-C
finish(process, status=130)
finish(start("train", "--resume", "runs/narrow"))

# %% [markdown] lang="en"
r"""
Is a resumed run the same as one that was never stopped? In the notebook, `iter_fit` trains as `fit` does and yields its
progress, and both take it back as `resume`:
"""

# %% [markdown] lang="ko"
r"""
이어서 한 학습은 멈춘 적이 없는 학습과 같을까요? 노트북에서는 `iter_fit`이 `fit`처럼 학습하면서 진행 상태를 내놓고, 둘 다 그것을
`resume`으로 다시 받습니다.
"""

# %%
for progress in jaxnet.iter_fit(net, params, data, batches, learning_rate=0.1):
    if len(progress.history.loss) == 400:
        break
resumed = jaxnet.fit(net, params, data, batches, learning_rate=0.1, resume=progress)
print("stopped after", len(progress.history.loss), "steps, resumed to", len(resumed.history.loss))
print("the same bits as without the stop:", same_bits(resumed.state.params, run.state.params))
assert same_bits((resumed.state.params, resumed.history), (run.state.params, run.history))

# %% [markdown] lang="en"
r"""
`jaxnet show` puts the runs side by side, with the options in which they differ:
"""

# %% [markdown] lang="ko"
r"""
`jaxnet show`는 학습들을 나란히 놓고, 서로 다른 옵션을 함께 보여 줍니다.
"""

# %%
finish(start("show", "runs/narrow", "runs/wide"))

# %% [markdown] lang="en"
r"""
## An image of your own

The network was trained on images of 8 by 8 pixels, light ink on black. A photograph is nothing like that. Let us draw a 2
with a trembling pen, blue on cream paper, 200 by 200 pixels:
"""

# %% [markdown] lang="ko"
r"""
## 직접 그린 이미지

신경망은 검은 바탕에 밝은 잉크로 된 8 × 8 픽셀 이미지로 학습했습니다. 사진은 전혀 그렇지 않습니다. 떨리는 펜으로 크림색 종이에
파란색 2를 200 × 200 픽셀로 그려 보겠습니다.
"""


# %% alt_en="Left: a dark 2 on light paper, drawn by an unsteady hand. Right: the same 2 as 8 by 8 grey squares, light on black" alt_ko="왼쪽: 떨리는 손으로 밝은 종이에 어둡게 그린 2. 오른쪽: 같은 2를 검은 바탕의 밝은 회색 네모 8 × 8개로 나타낸 것"
def stroke(corners):
    """Returns the points (60, 2) of a Bézier curve, as an unsteady hand would meet them."""
    s = np.linspace(0, 1, 60)[:, None, None]
    points = np.array(corners, float)[None]  # (1, K, 2)
    while points.shape[1] > 1:  # de Casteljau's algorithm
        points = (1 - s) * points[:, :-1] + s * points[:, 1:]
    return points[:, 0] + np.cumsum(rng.normal(0, 0.5, (60, 2)), axis=0)


rng = np.random.default_rng(0)
drawing = Image.new("RGB", (200, 200), (238, 232, 218))
pen = ImageDraw.Draw(drawing)
for corners in ([(60, 70), (70, 0), (190, 40), (140, 100), (60, 165)], [(60, 165), (100, 150), (150, 165)]):
    for x, y in stroke(corners):
        radius = rng.uniform(6, 8)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(45, 55, 95))
drawing.save(Path(folder.name, "two.png"))

adapted = own_images.read_image(Path(folder.name, "two.png"), side=8)
figure, cells = plt.subplots(1, 2, figsize=(6, 3))
for cell, image, title in zip(cells, (drawing, adapted.pixels), ("as drawn", "as adapted"), strict=True):
    cell.imshow(image, cmap="gray", vmin=0, vmax=1)
    cell.set_title(title)
    cell.set_axis_off()
plt.show()

# %% [markdown] lang="en"
r"""
On the right is what the network gets to see. `jaxnet predict` makes it from the file, says what it changed, and prints the
three likeliest digits with their probabilities:
"""

# %% [markdown] lang="ko"
r"""
오른쪽이 신경망이 보게 되는 이미지입니다. `jaxnet predict`는 파일에서 이 이미지를 만들고, 무엇을 바꾸었는지 알려 주고, 가장
그럴듯한 숫자 세 개를 확률과 함께 출력합니다.
"""

# %%
finish(start("predict", "runs/wide", "two.png"))
probabilities = jax.nn.softmax(jaxnet.predict(wide.net, wide.params, wide.state, adapted.pixels.reshape(1, 64)))
assert probabilities.argmax() == 2
folder.cleanup()

# %% [markdown] lang="en"
r"""
With eight pixels a side, the digits of other people are not always read so well; [the guide to runs](../runs.md) says how
often. Trained on MNIST, with `jaxnet train --dataset mnist`, the network does better.

## What to remember

| | before | after |
|---|---|---|
| parameters | changed in place | an argument and a result |
| a step | runs its Python code | traced once for each shape and dtype |
| all steps | a Python loop | a loop inside the program |
| randomness | a hidden state | a key |
| a run | an object in memory | the arguments of its next step, saved in a folder |

## Exercises

1. Make the learning rate an argument of `step`, and check with `counted_step` that another rate is no other program.
2. Replace SGD in `step` by Momentum. The velocity is one more argument and one more result; what is the carry of `scan`?
3. Print `jax.make_jaxpr(loss)(params, x, t)`, and find the two matrix products of the forward pass.
4. Draw another digit, or photograph one, and let `jaxnet predict` read it.

[The reference](../api/train.md) has the functions of this page.
"""

# %% [markdown] lang="ko"
r"""
한 변이 여덟 픽셀뿐이라 다른 사람이 쓴 숫자를 언제나 이렇게 잘 읽지는 못합니다. 얼마나 읽는지는 [학습 결과 안내](../runs.md)에
나와 있습니다. `jaxnet train --dataset mnist`로 MNIST를 학습하면 더 잘 읽습니다.

## 기억할 것

| | 전 | 후 |
|---|---|---|
| 매개변수 | 제자리에서 바뀜 | 인수이자 결과 |
| 갱신 한 번 | Python 코드를 실행함 | 형상과 dtype마다 한 번 추적함 |
| 모든 갱신 | Python 반복문 | 프로그램 안의 반복문 |
| 난수 | 숨은 상태 | 키 |
| 학습 | 메모리 속의 객체 | 폴더에 저장한 다음 갱신의 인수 |

## 연습 문제

1. 학습률을 `step`의 인수로 만들고, 학습률이 달라져도 프로그램이 새로 만들어지지 않는지 `counted_step`으로 확인해 보세요.
2. `step`의 SGD를 Momentum으로 바꿔 보세요. 속도가 인수와 결과에 하나씩 더해집니다. `scan`의 이월값은 무엇이 될까요?
3. `jax.make_jaxpr(loss)(params, x, t)`를 출력하고, 순전파의 행렬 곱 두 개를 찾아보세요.
4. 다른 숫자를 그리거나 사진으로 찍어서 `jaxnet predict`로 읽혀 보세요.

이 페이지에 나온 함수는 [참조 문서](../api/train.md)에 있습니다.
"""
