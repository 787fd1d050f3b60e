# %% [markdown] lang="en"
r"""
# Back propagation, three ways

This page follows a teaching notebook that does not work. The notebook belongs to the first five chapters of Saito
Goki's *Deep Learning from Scratch* (밑바닥부터 시작하는 딥러닝 in Korean). It writes a network of two layers in NumPy, checks
its gradients, and trains it on handwritten digits. When it is run, the loss becomes `nan`, the gradient check disagrees
with itself by more than 30 %, and nothing complains.

We go through it in its own order: sigmoid, softmax, ReLU and Affine, the loss, numerical gradients, the network, the
check, the training. On the way we meet nine defects. Each one is shown by a number or a picture, explained, and cured,
until the network recognises 97 % of the test images. By then every gradient has been derived in three ways: by hand, by
difference quotients, and by automatic differentiation.

You need matrix products and the chain rule. Plan an hour, and run the cells yourself as you read.
"""

# %% [markdown] lang="ko"
r"""
# 역전파, 세 가지 방법

이 글은 제대로 동작하지 않는 어느 학습용 노트북을 따라갑니다. 노트북은 사이토 고키의 『밑바닥부터 시작하는
딥러닝』(*Deep Learning from Scratch*) 앞부분 다섯 장을 바탕으로 합니다. NumPy로 두 층짜리 신경망을 만들고,
기울기를 검산하고, 손글씨 숫자를 학습합니다. 그런데 실행해 보면 손실이 `nan`이 되고, 기울기 검산은 30 % 넘게
어긋나는데도 아무런 오류가 나지 않습니다.

노트북의 순서를 그대로 따라가겠습니다. 시그모이드, 소프트맥스, ReLU, Affine, 손실 함수, 수치 미분, 신경망, 기울기
검산, 학습의 순서입니다. 그 길에서 결함 아홉 개를 만납니다. 결함마다 숫자나 그림으로 증상을 확인하고, 원인을
설명하고, 고칩니다. 끝에 이르면 신경망이 시험 이미지의 97 %를 알아맞힙니다. 그때까지 모든 기울기를 세 가지
방법으로 구하게 됩니다. 손으로 유도하는 방법, 수치 미분, 그리고 자동 미분입니다.

행렬 곱과 연쇄 법칙을 알고 있으면 충분합니다. 한 시간쯤 잡고, 셀을 직접 실행하면서 읽기를 권합니다.
"""

# %%
import inspect
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxnet
import numpy_ref
from jaxnet.crosscheck import check_layer, check_network
from numpy_ref import notebook  # the notebook as it was written


def show(thing):
    """Prints a part of the notebook; its comments name the defects."""
    print(inspect.getsource(thing).replace("  # noqa: ARG002", ""))


np.seterr(all="ignore")  # as the notebook ran: no warning of overflow or nan
np.set_printoptions(precision=4, suppress=True)
plt.rc("figure", figsize=(6, 3.4), dpi=150)
plt.rc("figure.constrained_layout", use=True)
plt.rc("axes.spines", top=False, right=False)
plt.rc("axes", grid=True, axisbelow=True)
plt.rc("grid", color="0.9")
plt.rc("font", size=11)

# %% alt_en="Ten handwritten digits, 5 0 4 1 9 2 1 3 1 4" alt_ko="손글씨 숫자 열 개, 5 0 4 1 9 2 1 3 1 4"
try:
    data = jaxnet.data.mnist()
except jaxnet.data.DatasetError as error:
    data = jaxnet.data.digits()
    print(f"{error}\nHere the smaller digits of scikit-learn stand in, so the figures differ from those in the text.")
is_mnist = len(data.x_train) == 60_000

x_train, t_train = data.x_train[:10_000].astype(np.float64), np.eye(10)[data.t_train[:10_000]]
x_test, t_test = data.x_test.astype(np.float64), np.eye(10)[data.t_test]
D = x_train.shape[1]  # pixels of an image
print(x_train.shape, t_train.shape)

figure, cells = plt.subplots(1, 10, figsize=(6, 0.8))
for cell, image in zip(cells, x_train, strict=False):
    cell.imshow(image.reshape(int(D**0.5), -1), cmap="gray_r")
    cell.set_axis_off()
plt.show()

# %% [markdown] lang="en"
r"""
A batch $x$ has $N$ images, one in each row, with $D = 784$ pixels between 0 and 1. The labels $t$ are one-hot: row $n$
has a 1 at the true digit and 0 elsewhere. For most experiments the first 10,000 images are enough.

## A run that fails

Here are the first 301 steps of the notebook's training, with its own code. Each line has the step, the loss of the
batch, and the share of training and test images that are recognised.
"""

# %% [markdown] lang="ko"
r"""
배치 $x$에는 이미지가 한 행에 하나씩 $N$장 들어 있고, 각 이미지는 0과 1 사이의 픽셀 $D = 784$개로 이루어집니다. 정답
레이블 $t$는 원-핫 표현입니다. 행 $n$에서 정답 숫자의 자리만 1이고 나머지는 0입니다. 실험은 대부분 처음 10,000장으로도
충분합니다.

## 실패하는 학습

노트북의 코드를 그대로 써서 처음 301번의 갱신을 실행해 봅니다. 각 줄은 갱신 횟수, 배치의 손실, 그리고 훈련
이미지와 시험 이미지에 대한 정확도입니다.
"""

# %%
images = x_train, t_train, x_test, t_test
for step, loss, train, test in notebook.train(notebook.TwoLayerNet(D, 50, 10), *images, np.random.default_rng(0), 301):
    print(f"step {step:3}  loss {loss:8.3f}  train {train:.3f}  test {test:.3f}")

# %% [markdown] lang="en"
r"""
The loss starts near 6.9, rises, and ends in `nan`. Two things are wrong already at step 0, before anything is learned.
A network that knows nothing gives each of the 10 digits a probability of $1/10$, so its loss should be close to
$\log 10 = 2.3$. And 6.9 is $\log 1000$, where 1000 is 10 digits times 100 images in the batch. Keep this number in mind.

## Sigmoid: one derivative, three ways

The notebook begins with an activation function, the sigmoid

$$y = \frac{1}{1 + e^{-x}}.$$

**By hand.** With $u = 1 + e^{-x}$, $y = 1/u$, the chain rule gives

$$\frac{dy}{dx} = -\frac{1}{u^2} \cdot (-e^{-x}) = \frac{1}{u} \cdot \frac{e^{-x}}{u} = y (1 - y),$$

because $e^{-x} / u = (u - 1) / u = 1 - y$. So the backward pass needs only the output that the forward pass computed.

**By difference quotients.** A derivative is a limit of slopes, and a small step $h$ gives nearly that:

$$\frac{dy}{dx} \approx \frac{y(x + h) - y(x - h)}{2h}.$$

**By automatic differentiation.** JAX follows the operations of the function itself and applies the chain rule to each.
"""

# %% [markdown] lang="ko"
r"""
손실은 6.9 근처에서 시작해 커지다가 `nan`으로 끝납니다. 아직 아무것도 배우지 않은 0번째부터 이상한 점이 둘 있습니다.
아무것도 모르는 신경망은 숫자 10개에 똑같이 $1/10$의 확률을 주므로, 손실은 $\log 10 = 2.3$에 가까워야 합니다. 그런데
6.9는 $\log 1000$이고, 1000은 숫자 10개에 배치의 이미지 100장을 곱한 수입니다. 이 숫자를 기억해 두십시오.

## 시그모이드: 미분 하나를 세 가지 방법으로

노트북은 활성화 함수인 시그모이드로 시작합니다.

$$y = \frac{1}{1 + e^{-x}}.$$

**손으로.** $u = 1 + e^{-x}$, $y = 1/u$로 두면 연쇄 법칙에 따라 다음과 같습니다.

$$\frac{dy}{dx} = -\frac{1}{u^2} \cdot (-e^{-x}) = \frac{1}{u} \cdot \frac{e^{-x}}{u} = y (1 - y),$$

$e^{-x} / u = (u - 1) / u = 1 - y$이기 때문입니다. 그래서 역전파에는 순전파에서 계산한 출력만 있으면 됩니다.

**수치 미분으로.** 미분은 기울기의 극한이므로, 작은 $h$를 쓰면 거의 같은 값을 얻습니다.

$$\frac{dy}{dx} \approx \frac{y(x + h) - y(x - h)}{2h}.$$

**자동 미분으로.** JAX는 함수가 실행하는 연산을 하나하나 따라가며 연쇄 법칙을 적용합니다.
"""


# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


x, h = np.array([-2.0, 0.0, 1.0]), 1e-4
y = sigmoid(x)
print("by hand    ", y * (1 - y))
print("quotients  ", (sigmoid(x + h) - sigmoid(x - h)) / (2 * h))
print("automatic  ", jax.vmap(jax.grad(jax.nn.sigmoid))(x))

# %% alt_en="The sigmoid rises from 0 to 1; its derivative is a hill of height 0.25 around 0" alt_ko="시그모이드는 0에서 1로 올라가고, 미분은 0에서 높이 0.25인 언덕 모양"
x = np.linspace(-8, 8, 201)
y = sigmoid(x)
figure, axes = plt.subplots()
axes.plot(x, y, color="black", label="sigmoid y")
axes.plot(x, y * (1 - y), color="black", linestyle="--", label="derivative y (1 - y)")
axes.set_xlabel("x")
axes.legend(frameon=False)
plt.show()

# %% [markdown] lang="en"
r"""
Three derivations share nothing but the function, so their agreement is evidence. The picture shows why deep networks
prefer other activations: the derivative is at most 0.25, and nearly 0 a few units away from the middle. Every sigmoid
that a gradient passes through makes it at least 4 times smaller. The network of the notebook uses ReLU.

## Softmax

The last layer has one number for each digit, a *logit*. Softmax turns the 10 logits $x_1, \dots, x_C$ of an image into
probabilities:

$$p_i = \frac{e^{x_i}}{\sum_{k} e^{x_k}}.$$

They are positive and sum to 1. Adding the same number to all logits changes nothing, because $e^c$ cancels. Therefore
one may subtract the largest logit first, so that no exponential overflows. This is how the notebook has it:
"""

# %% [markdown] lang="ko"
r"""
세 가지 유도는 함수 말고는 공유하는 것이 없으므로, 서로 일치한다면 믿을 만한 증거가 됩니다. 그림을 보면 깊은
신경망이 다른 활성화 함수를 쓰는 이유도 알 수 있습니다. 미분은 커야 0.25이고, 가운데에서 조금만 벗어나도 0에
가까워집니다. 기울기는 시그모이드를 하나 지날 때마다 적어도 4배 작아집니다. 노트북의 신경망은 ReLU를 씁니다.

## 소프트맥스

마지막 계층은 숫자마다 값을 하나씩 내는데, 이를 *로짓*이라 합니다. 소프트맥스는 이미지 한 장의 로짓 10개,
$x_1, \dots, x_C$를 확률로 바꿉니다.

$$p_i = \frac{e^{x_i}}{\sum_{k} e^{x_k}}.$$

확률은 모두 양수이고 더하면 1입니다. 모든 로짓에 같은 수를 더해도 $e^c$가 약분되어 결과는 그대로입니다. 그래서 가장 큰
로짓을 먼저 빼 두면 지수 함수가 오버플로를 일으키지 않습니다. 노트북의 코드는 이렇습니다.
"""

# %%
show(notebook.softmax)
p = notebook.softmax(np.zeros((2, 4)))  # 2 images, 4 classes, all logits equal
print(p)
print("sum of each row:", p.sum(axis=1))

# %% [markdown] lang="en"
r"""
**Defect 1: softmax over the whole batch.** Each row should be $1/4$ four times and sum to 1. But `np.max` and `np.sum`
without `axis` run over all rows, so all images of the batch share one sum of 1. That explains the 6.9: at the start, each
of the 1000 numbers of a batch is about $1/1000$.

Why does the loss then grow? Write $S$ for the sum over the whole batch. The loss as written is
$L = -\frac{1}{N} \sum_n \log (e^{x_{n t_n}} / S)$, where $x_{n t_n}$ is the logit of the true digit. The notebook's
backward pass returns $(y - t) / N$ for it. But a number that is added to all logits cannot change $L$, so all elements of
the true gradient must sum to 0. Those of the notebook sum to

$$\frac{\sum y - \sum t}{N} = \frac{1 - N}{N}.$$

With 100 images that is $-0.99$. Gradient descent goes against the gradient, so each step pushes the logits up on the
whole. Their exponentials grow without bound, and the training ends in `nan`.

**The cure** is to take the maximum and the sum of each row, and to keep the axis, so that $(N, C)$ is divided by $(N, 1)$.
"""

# %% [markdown] lang="ko"
r"""
**결함 1: 배치 전체에 적용한 소프트맥스.** 각 행은 $1/4$이 네 번 나와서 더하면 1이 되어야 합니다. 그런데 `np.max`와
`np.sum`에 `axis`가 없어서 모든 행을 한꺼번에 계산하므로, 배치의 모든 이미지가 합계 1을 나누어 가집니다. 앞에서 본 6.9도
이것으로 설명됩니다. 처음에는 배치의 수 1000개가 저마다 $1/1000$ 정도이기 때문입니다.

그렇다면 손실은 왜 커질까요? 배치 전체의 합을 $S$라 하겠습니다. 코드가 계산하는 손실은
$L = -\frac{1}{N} \sum_n \log (e^{x_{n t_n}} / S)$이고, $x_{n t_n}$은 정답 숫자의 로짓입니다. 노트북의 역전파는 그
기울기로 $(y - t) / N$을 돌려줍니다. 그러나 모든 로짓에 같은 수를 더해도 $L$은 변하지 않으므로, 올바른 기울기의 원소를
모두 더하면 0이어야 합니다. 노트북의 기울기를 더하면 이렇게 됩니다.

$$\frac{\sum y - \sum t}{N} = \frac{1 - N}{N}.$$

이미지가 100장이면 $-0.99$입니다. 경사 하강법은 기울기의 반대 방향으로 움직이므로, 갱신할 때마다 로짓이 전체적으로 위로
밀려 올라갑니다. 지수 함수의 값은 끝없이 커지고, 학습은 `nan`으로 끝납니다.

**고치는 방법**은 최댓값과 합을 행마다 구하는 것입니다. 축을 남겨 두어야 $(N, C)$를 $(N, 1)$로 나눌 수 있습니다.
"""


# %%
def softmax(x):  # (N, C)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


print(softmax(np.zeros((2, 4))))
logits, t = np.random.default_rng(0).normal(size=(100, 10)), t_train[:100]
print(f"sum of the gradient: {((notebook.softmax(logits) - t) / 100).sum():.2f} as written,", end=" ")
print(f"{abs(((softmax(logits) - t) / 100).sum()):.2f} cured")

# %% [markdown] lang="en"
r"""
## ReLU

ReLU lets positive numbers pass and stops the others: $y = \max(x, 0)$. Its derivative is 1 where $x > 0$ and 0 elsewhere.

From here on, a layer has two methods. `forward(x)` returns $y$ and keeps what will be needed later. `backward(dout)`
receives $\partial L / \partial y$, the gradient of the final loss with respect to what this layer returned, and returns
$\partial L / \partial x$. The chain rule multiplies the two: for ReLU, `dx` is `dout` where $x > 0$, and 0 elsewhere. A
network runs all `forward` from the first layer to the last, and all `backward` from the last to the first. Here is the
notebook's ReLU:
"""

# %% [markdown] lang="ko"
r"""
## ReLU

ReLU는 양수는 그대로 통과시키고 나머지는 막습니다. $y = \max(x, 0)$입니다. 미분은 $x > 0$인 곳에서 1이고 나머지는
0입니다.

지금부터 계층은 메서드를 두 개 가집니다. `forward(x)`는 순전파로, $y$를 돌려주고 나중에 필요한 값을 저장해 둡니다.
`backward(dout)`은 역전파로, 이 계층의 출력에 대한 최종 손실의 기울기 $\partial L / \partial y$를 받아
$\partial L / \partial x$를 돌려줍니다. 연쇄 법칙에 따라 둘을 곱하면 됩니다. ReLU라면 `dx`는 $x > 0$인 곳에서 `dout`이고
나머지는 0입니다. 신경망은 `forward`를 첫 계층에서 마지막 계층까지, `backward`를 마지막 계층에서 첫 계층까지 차례로
실행합니다. 노트북의 ReLU는 이렇습니다.
"""

# %%
show(notebook.ReLU)
relu = notebook.ReLU()
relu.forward(np.array([[-1.0, 2.0]]))
dout = np.array([[5.0, 5.0]])
dx = relu.backward(dout)
print("dx", dx, " dout afterwards", dout)

# %% [markdown] lang="en"
r"""
**Defect 4: the caller's array is overwritten.** (The numbers are those of the finished list; we meet the defects in the
order of the code.) The returned `dx` is right. But `dout[self.mask] = 0` writes into an array that belongs to somebody
else, and a 5 of the caller has become a 0. As long as layers stand in a single row, nobody looks at `dout` again. As soon
as a network has two branches, as in $y = x + f(x)$, the same `dout` goes into both, and the second branch receives what
the first has left of it.

**The cure** is to return a new array.
"""

# %% [markdown] lang="ko"
r"""
**결함 4: 호출한 쪽의 배열을 덮어씁니다.** (번호는 완성된 목록의 번호이고, 결함은 코드에 나오는 순서대로 만납니다.)
돌려받은 `dx`는 맞습니다. 그러나 `dout[self.mask] = 0`은 남의 배열에 값을 씁니다. 그래서 호출한 쪽이 가지고 있던 5가
0으로 바뀌었습니다. 계층이 한 줄로 늘어서 있는 동안에는 `dout`을 다시 쓰는 곳이 없습니다. 하지만 $y = x + f(x)$처럼 갈래가
둘인 신경망에서는 같은 `dout`이 양쪽으로 들어가므로, 두 번째 갈래는 첫 번째 갈래가 망가뜨린 값을 받게 됩니다.

**고치는 방법**은 새 배열을 돌려주는 것입니다.
"""


# %%
class ReLU:
    def forward(self, x):
        self.mask = x <= 0
        return np.where(self.mask, 0, x)

    def backward(self, dout):
        return np.where(self.mask, 0, dout)


print("as written:", check_layer(notebook.ReLU(), (5, 4)).verdict)
print("cured:     ", check_layer(ReLU(), (5, 4)).verdict)

# %% [markdown] lang="en"
r"""
`check_layer` is the checker of this project. It calls the layer, compares `backward` with difference quotients of
`forward`, and looks for side effects such as this one. In the section on numerical gradients we write a small checker
ourselves.

## Affine

The layer with the parameters, $y = x W + b$, has the shapes $(N, D) \cdot (D, M) + (M) = (N, M)$. Element by element,

$$y_{nj} = \sum_i x_{ni} W_{ij} + b_j.$$

Now the chain rule, for one weight at a time. $W_{ij}$ appears in $y_{nj}$ for every image $n$, each time multiplied by
$x_{ni}$. The bias $b_j$ appears in $y_{nj}$ for every $n$, multiplied by 1. And $x_{ni}$ appears in $y_{nj}$ for every
$j$, multiplied by $W_{ij}$. A number that is used in several places gathers the gradient from all of them:

$$\frac{\partial L}{\partial W_{ij}} = \sum_n x_{ni} \frac{\partial L}{\partial y_{nj}}, \qquad
\frac{\partial L}{\partial b_j} = \sum_n \frac{\partial L}{\partial y_{nj}}, \qquad
\frac{\partial L}{\partial x_{ni}} = \sum_j \frac{\partial L}{\partial y_{nj}} W_{ij}.$$

As matrices these are `dW = x.T @ dout`, `db = dout.sum(axis=0)` and `dx = dout @ W.T`. If you forget where the transpose
belongs, the shapes tell: `dW` must be $(D, M)$, and only $(D, N) \cdot (N, M)$ gives that.
"""

# %% [markdown] lang="ko"
r"""
`check_layer`는 이 프로젝트의 검사 도구입니다. 계층을 호출해서 `backward`의 결과를 `forward`의 수치 미분과 비교하고,
방금 본 것과 같은 부작용이 있는지도 살핍니다. 수치 미분을 다루는 절에서는 작은 검사 도구를 직접 만들어 보겠습니다.

## Affine

매개변수를 가진 계층 $y = x W + b$의 형상은 $(N, D) \cdot (D, M) + (M) = (N, M)$입니다. 원소별로 쓰면 다음과 같습니다.

$$y_{nj} = \sum_i x_{ni} W_{ij} + b_j.$$

이제 가중치 하나하나에 연쇄 법칙을 적용합니다. $W_{ij}$는 모든 이미지 $n$의 $y_{nj}$에 $x_{ni}$와 곱해져 나타납니다. 편향
$b_j$는 모든 $n$의 $y_{nj}$에 1과 곱해져 나타납니다. 그리고 $x_{ni}$는 모든 $j$의 $y_{nj}$에 $W_{ij}$와 곱해져 나타납니다.
여러 곳에 쓰인 수는 그 모든 곳에서 오는 기울기를 더해서 받습니다.

$$\frac{\partial L}{\partial W_{ij}} = \sum_n x_{ni} \frac{\partial L}{\partial y_{nj}}, \qquad
\frac{\partial L}{\partial b_j} = \sum_n \frac{\partial L}{\partial y_{nj}}, \qquad
\frac{\partial L}{\partial x_{ni}} = \sum_j \frac{\partial L}{\partial y_{nj}} W_{ij}.$$

행렬로 쓰면 `dW = x.T @ dout`, `db = dout.sum(axis=0)`, `dx = dout @ W.T`입니다. 어느 쪽을 전치해야 하는지 잊었다면 형상을
보면 됩니다. `dW`는 $(D, M)$이어야 하고, 그렇게 되는 곱은 $(D, N) \cdot (N, M)$뿐입니다.
"""


# %%
class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b  # (D, M), (M,)

    def forward(self, x):
        self.x = x  # (N, D)
        return x @ self.W + self.b  # (N, M)

    def backward(self, dout):
        self.dW = self.x.T @ dout  # (D, N) @ (N, M) -> (D, M)
        self.db = dout.sum(axis=0)  # (M,)
        return dout @ self.W.T  # (N, M) @ (M, D) -> (N, D)


rng = np.random.default_rng(0)
print(check_layer(Affine(rng.normal(size=(4, 3)), rng.normal(size=3)), rng.normal(size=(5, 4))))

# %% [markdown] lang="en"
r"""
The notebook had this layer right. Read the report by its rows: each array with a gradient has a verdict, and the largest
relative error is far below what the difference quotients themselves could be wrong by.

## The loss

The loss is the cross-entropy: minus the logarithm of the probability that the network gave to the true digit, averaged
over the batch,

$$L = -\frac{1}{N} \sum_n \log p_{n t_n}.$$

The notebook computes $p$ with softmax, and then `np.log(y)`. Let one logit move away from another:
"""

# %% [markdown] lang="ko"
r"""
노트북의 이 계층에는 결함이 없었습니다. 보고서는 행 단위로 읽습니다. 기울기를 가진 배열마다 판정이 나오고, 가장 큰
상대 오차는 수치 미분 자체의 오차 한계보다 훨씬 작습니다.

## 손실 함수

손실 함수는 교차 엔트로피입니다. 신경망이 정답 숫자에 준 확률의 로그에 음의 부호를 붙이고 배치에 대해 평균을 냅니다.

$$L = -\frac{1}{N} \sum_n \log p_{n t_n}.$$

노트북은 소프트맥스로 $p$를 구한 다음 `np.log(y)`를 계산합니다. 로짓 하나를 다른 하나에서 점점 멀리 떨어뜨려 보겠습니다.
"""


# %% alt_en="Two lines rise together; the loss from probabilities stops at 745, the loss from logits goes on" alt_ko="두 선이 함께 올라가다가, 확률로 구한 손실은 745에서 끊기고 로짓으로 구한 손실은 계속 올라감"
def log_softmax(x):
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


gap = np.arange(0, 1001, 5.0)
pairs = np.stack([gap, np.zeros_like(gap)], axis=1)  # (201, 2): the true class is the second
figure, axes = plt.subplots()
axes.plot(gap, -np.log(softmax(pairs)[:, 1]), color="black", linewidth=4, label="log(softmax(x)): ends at 745")
axes.plot(gap, -log_softmax(pairs)[:, 1], color="0.6", linestyle="--", label="log_softmax(x)")
axes.set_xlabel("logit of the wrong class minus logit of the true class")
axes.set_ylabel("loss")
axes.legend(frameon=False)
plt.show()
for x, t in (([1000.0, 0.0], [0, 1]), ([1000.0, 0.0], [1, 0])):
    print("as written", notebook.SoftmaxWithLoss().forward(np.array([x]), np.array([t])), end="   ")
    print("from logits", (-np.array([t]) * log_softmax(np.array([x]))).sum())

# %% [markdown] lang="en"
r"""
**Defect 6: the logarithm of a probability that has become 0.** The smallest positive number in double precision is about
$5 \cdot 10^{-324}$, which is $e^{-745}$. Beyond that gap the probability is 0, and its logarithm is $-\infty$. If the
class is the true one, the loss is infinite. If it is not, the one-hot label multiplies it by 0, and $0 \cdot \infty$ is
`nan`. In single precision it happens beyond a gap of 104.

**The cure** is not to compute the probability at all. With $m$ the largest logit,

$$\log p_i = x_i - m - \log \sum_k e^{x_k - m}.$$

The sum contains $e^0 = 1$, so its logarithm never has to deal with 0, and nothing overflows.

Now the gradient. $\log p_i = x_i - \log \sum_k e^{x_k}$, and the derivative of the second term by $x_j$ is
$e^{x_j} / \sum_k e^{x_k} = p_j$. Hence $\partial \log p_i / \partial x_j$ is $1 - p_j$ if $j = i$, and $-p_j$ otherwise. With
$i$ the true digit, and the minus sign and the mean of the loss, this becomes

$$\frac{\partial L}{\partial x_{nj}} = \frac{p_{nj} - t_{nj}}{N},$$

the prediction minus the truth. It is exactly what the notebook returns, apart from one thing:
"""

# %% [markdown] lang="ko"
r"""
**결함 6: 0이 되어 버린 확률의 로그.** 배정밀도로 나타낼 수 있는 가장 작은 양수는 약 $5 \cdot 10^{-324}$, 곧
$e^{-745}$입니다. 차이가 그보다 커지면 확률은 0이 되고 로그는 $-\infty$가 됩니다. 그 클래스가 정답이면 손실이
무한대가 됩니다. 정답이 아니면 원-핫 레이블의 0이 곱해지는데, $0 \cdot \infty$는 `nan`입니다. 단정밀도에서는 차이가
104를 넘으면 같은 일이 일어납니다.

**고치는 방법**은 확률을 아예 계산하지 않는 것입니다. 가장 큰 로짓을 $m$이라 하면 다음과 같습니다.

$$\log p_i = x_i - m - \log \sum_k e^{x_k - m}.$$

합에는 $e^0 = 1$이 들어 있어서 로그가 0을 받는 일이 없고, 오버플로도 일어나지 않습니다.

이제 기울기를 구합니다. $\log p_i = x_i - \log \sum_k e^{x_k}$이고, 둘째 항을 $x_j$로 미분하면
$e^{x_j} / \sum_k e^{x_k} = p_j$입니다. 따라서 $\partial \log p_i / \partial x_j$는 $j = i$이면 $1 - p_j$이고, 아니면
$-p_j$입니다. $i$가 정답 숫자일 때 손실의 음의 부호와 평균을 넣으면 이렇게 됩니다.

$$\frac{\partial L}{\partial x_{nj}} = \frac{p_{nj} - t_{nj}}{N},$$

예측에서 정답을 뺀 값입니다. 노트북이 돌려주는 값과 똑같은데, 한 가지가 다릅니다.
"""

# %%
show(notebook.SoftmaxWithLoss)
last = notebook.SoftmaxWithLoss()
last.forward(np.zeros((1, 4)), np.array([[1, 0, 0, 0]]))  # a single image, for which defect 1 does no harm
print("backward(1):", last.backward(1.0))
print("backward(3):", last.backward(3.0))

# %% [markdown] lang="en"
r"""
**Defect 5: the loss layer ignores `dout`.** The gradient of $3L$ must be 3 times the gradient of $L$, but both lines are
the same. The notebook never notices, because it calls `backward()` with the default 1. It breaks for anyone who scales
the loss, or adds a second term to it with a weight.

**The cure** is to multiply. Here is the whole layer, from logits:
"""

# %% [markdown] lang="ko"
r"""
**결함 5: 손실 계층이 `dout`을 무시합니다.** $3L$의 기울기는 $L$의 기울기의 3배여야 하는데, 두 줄이 똑같습니다.
노트북은 항상 기본값 1로 `backward()`를 호출하므로 눈치채지 못합니다. 손실에 상수를 곱하거나 가중치를 붙여 다른 항을
더하는 순간 틀린 값이 나옵니다.

**고치는 방법**은 곱하는 것입니다. 로짓에서 출발하는 계층 전체는 이렇습니다.
"""


# %%
class SoftmaxWithLoss:
    def forward(self, x, t):  # (N, C), (N, C)
        self.log_p, self.t = log_softmax(x), t
        return -(t * self.log_p).sum() / len(x)

    def backward(self, dout=1.0):
        return dout * (np.exp(self.log_p) - self.t) / len(self.t)  # (N, C)


last = SoftmaxWithLoss()
last.forward(np.zeros((1, 4)), np.array([[1, 0, 0, 0]]))
print("backward(3):", last.backward(3.0))
print("far apart:  ", last.forward(np.array([[1000.0, 0.0]]), np.array([[0, 1]])))

# %% [markdown] lang="en"
r"""
## Numerical gradients

To check a gradient, the notebook moves each parameter by $\pm h$ and looks at the loss. How good is that? Expand
$f(x \pm h)$ as a Taylor series; the even terms cancel:

$$\frac{f(x + h) - f(x - h)}{2h} = f'(x) + \frac{h^2}{6} f'''(x) + \dots$$

So the error falls with $h^2$. On the other hand $f$ is known to about 16 digits only, with an error of $\varepsilon |f|$,
$\varepsilon = 2 \cdot 10^{-16}$, and the division by $h$ makes that error large when $h$ is small. The two balance near
$h = \sqrt[3]{\varepsilon} = 6 \cdot 10^{-6}$. Measured for the loss, by one logit:
"""

# %% [markdown] lang="ko"
r"""
## 수치 미분

노트북은 기울기를 검산하려고 매개변수를 하나씩 $\pm h$만큼 움직이고 손실의 변화를 봅니다. 이 방법은 얼마나
정확할까요? $f(x \pm h)$를 테일러 급수로 전개하면 짝수 차수의 항이 사라집니다.

$$\frac{f(x + h) - f(x - h)}{2h} = f'(x) + \frac{h^2}{6} f'''(x) + \dots$$

오차는 $h^2$에 비례해 줄어듭니다. 그런데 $f$는 약 16자리까지만 정확해서 $\varepsilon |f|$, $\varepsilon = 2 \cdot 10^{-16}$만큼의
오차가 있고, $h$가 작으면 $h$로 나눌 때 이 오차가 커집니다. 두 오차는 $h = \sqrt[3]{\varepsilon} = 6 \cdot 10^{-6}$
근처에서 균형을 이룹니다. 로짓 하나에 대한 손실의 미분에서 재어 보면 이렇습니다.
"""

# %% alt_en="The error over the step is a V on log axes, with its foot near 1e-5" alt_ko="간격에 대한 오차는 로그 축에서 V자이고, 가장 낮은 곳은 1e-5 근처"
logits, t = np.random.default_rng(1).normal(size=(1, 10)), np.eye(10)[[3]]
direction = np.eye(10)[[3]]  # moves logit 3
loss = SoftmaxWithLoss()
loss.forward(logits, t)
exact = loss.backward()[0, 3]
steps = 10.0 ** np.arange(-11, 0.1, 0.25)
quotients = [
    (loss.forward(logits + h * direction, t) - loss.forward(logits - h * direction, t)) / (2 * h) for h in steps
]
figure, axes = plt.subplots()
axes.loglog(steps, np.abs(np.array(quotients) - exact), color="black", marker="o", markersize=3)
axes.axvline(1e-4, color="0.6", linestyle="--")
axes.annotate("the notebook's h", (1e-4, 1e-3), (-6, 0), textcoords="offset points", ha="right")
axes.set_xlabel("step h")
axes.set_ylabel("error of the quotient")
plt.show()

# %% [markdown] lang="en"
r"""
On the right of the V is the error of the series, on the left the rounding. The notebook's $h = 10^{-4}$ is a little too
large, but good to 9 digits. A difference of 30 % is no matter of $h$. So let us look at what its function does to a
parameter:
"""

# %% [markdown] lang="ko"
r"""
V자의 오른쪽은 급수의 오차이고 왼쪽은 반올림 오차입니다. 노트북의 $h = 10^{-4}$은 조금 크지만 9자리까지는 맞습니다.
30 %나 되는 차이는 $h$의 문제가 아닙니다. 그래서 이 함수가 매개변수에 무슨 일을 하는지 보겠습니다.
"""

# %%
show(notebook._numerical_grad)
x = np.array([1.0, 2.0, 3.0])
print("gradient of x @ x:", notebook._numerical_grad(lambda x: x @ x, x), " should be [2, 4, 6]")
print("x moved by:       ", x - [1, 2, 3])

# %% [markdown] lang="en"
r"""
**Defect 2: the parameter is not put back.** It goes down by $h$, up by $2h$, and stays $h$ too high. The gradient that is
returned here is nearly right, because each element is measured before it is spoiled. But the elements before it have
moved already: after a check, all 39,760 parameters of the network are off by 0.0001, the later ones were measured
at another point than the first, and the network that is trained afterwards is not the one that was drawn.

**The cure** is to put the saved value back, not to subtract $h$ again, which rounds.
"""

# %% [markdown] lang="ko"
r"""
**결함 2: 매개변수를 되돌려 놓지 않습니다.** $h$만큼 내렸다가 $2h$만큼 올리고, 결국 $h$만큼 높은 채로 둡니다. 여기서
돌려준 기울기는 거의 맞습니다. 각 원소는 망가지기 전에 재기 때문입니다. 그러나 앞의 원소들은 이미 움직인 뒤입니다.
검산이 끝나면 신경망의 매개변수 39,760개가 모두 0.0001씩 어긋나 있고, 뒤쪽 매개변수는 처음과 다른 지점에서
쟀으며, 그 뒤에 학습하는 신경망은 처음에 뽑은 신경망이 아닙니다.

**고치는 방법**은 저장해 둔 값을 그대로 되돌리는 것입니다. $h$를 다시 빼면 반올림 오차가 남습니다.
"""


# %%
def numerical_gradient(f, x, h=6e-6):
    """Returns the gradient of the scalar f() by the array x of any shape, which f reads."""
    grad = np.empty_like(x)
    for i in np.ndindex(x.shape):
        saved = x[i]
        x[i] = saved + h
        up = f()
        x[i] = saved - h
        down = f()
        x[i] = saved
        grad[i] = (up - down) / (2 * h)
    return grad


x = np.array([1.0, 2.0, 3.0])
print("gradient of x @ x:", numerical_gradient(lambda: x @ x, x), " x moved by:", x - [1, 2, 3])

# %% [markdown] lang="en"
r"""
The notebook has a second version, which should be faster: it moves a whole column of $X$, all rows at once.
"""

# %% [markdown] lang="ko"
r"""
노트북에는 더 빠르게 하려고 만든 두 번째 함수가 있습니다. $X$의 열 하나를, 모든 행에서 한꺼번에 움직입니다.
"""

# %%
X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
print("one value per row, sum of X² over each row:")
print(notebook.numerical_gradient_batch_v2(lambda X: (X**2).sum(axis=1), X))
print("one value for all, sum of X²:")
print(notebook.numerical_gradient_batch_v2(lambda X: (X**2).sum(), X))

# %% [markdown] lang="en"
r"""
**Defect 3: all rows move at once.** The gradient is $2X$ in both cases. The first result is right: the value of row $n$
depends on row $n$ alone, so it does not matter that the other rows move too. In the second case there is a single value,
and it feels all rows together. Each row receives the sum of its column, $2 + 6 + 10 = 18$ and $4 + 8 + 12 = 24$. A loss is
such a function, with a single value for the batch.

**The cure** is to refuse: `numpy_ref.numerical_gradient_batch_v2` requires one value per row.
"""

# %% [markdown] lang="ko"
r"""
**결함 3: 모든 행이 한꺼번에 움직입니다.** 기울기는 두 경우 모두 $2X$입니다. 첫 번째 결과는 맞습니다. 행 $n$의 값은 행
$n$에만 달려 있으므로 다른 행이 함께 움직여도 상관없습니다. 두 번째 경우에는 값이 하나뿐이고, 모든 행의 영향을 함께
받습니다. 그래서 행마다 열의 합 $2 + 6 + 10 = 18$과 $4 + 8 + 12 = 24$가 들어갑니다. 손실 함수가 바로 배치 전체에 값이
하나인 함수입니다.

**고치는 방법**은 거부하는 것입니다. `numpy_ref.numerical_gradient_batch_v2`는 행마다 값이 하나씩인 함수만 받습니다.
"""

# %% tags=["raises-exception"]
numpy_ref.numerical_gradient_batch_v2(lambda X: (X**2).sum(), X)

# %% [markdown] lang="en"
r"""
## The two-layer network

The notebook's network is a row of layers. The arrows are the forward pass; back propagation runs along them backwards,
and each arrow then carries a gradient of the same shape.

```text
x ──────▶ Affine1 ──────▶ Relu1 ──────▶ Affine2 ──────▶ Relu2 ──────▶ softmax, loss ──▶ L
(N, 784)          (N, 50)       (N, 50)         (N, 10)       (N, 10)                  ()
```

**Defect 7: a ReLU after the last layer.** It cuts off negative logits, so that the network cannot say "surely not". And a
logit that is negative for all images gets no gradient at all, because ReLU stops it: the digit is dead and stays dead. To
see this alone, we give the notebook our softmax and a larger learning rate, and train it with and without `Relu2`.
"""

# %% [markdown] lang="ko"
r"""
## 두 층의 신경망

노트북의 신경망은 계층을 한 줄로 이은 것입니다. 화살표가 순전파이고, 역전파는 이 길을 거꾸로 지나갑니다. 그때
화살표마다 같은 형상의 기울기가 흐릅니다.

```text
x ──────▶ Affine1 ──────▶ Relu1 ──────▶ Affine2 ──────▶ Relu2 ──────▶ softmax, loss ──▶ L
(N, 784)          (N, 50)       (N, 50)         (N, 10)       (N, 10)                  ()
```

**결함 7: 마지막 계층 뒤의 ReLU.** 음수인 로짓을 잘라 버리므로 신경망은 '확실히 아니다'라고 말할 수 없습니다. 게다가
모든 이미지에서 음수인 로짓은 ReLU에 막혀 기울기를 전혀 받지 못합니다. 그 숫자는 죽은 채로 다시 살아나지 못합니다.
이 결함만 따로 보려고, 노트북에 우리의 소프트맥스와 더 큰 학습률을 주고 `Relu2`가 있을 때와 없을 때를 각각 학습해
보겠습니다.
"""

# %% alt_en="Share of each digit that is recognised: without Relu2 all bars are high, with Relu2 some are zero" alt_ko="숫자별로 알아맞힌 비율: Relu2가 없으면 모두 높고, 있으면 0인 숫자가 있음"
written_softmax, notebook.softmax = notebook.softmax, softmax  # cures defect 1
recalls = {}
for name in ("with Relu2", "without"):
    network = notebook.TwoLayerNet(D, 50, 10)
    if name == "without":
        del network.layers["Relu2"]
    history = notebook.train(network, *images, np.random.default_rng(0), 1001, learning_rate=0.1)
    print(f"{name:10}  test accuracy {history[-1][-1]:.3f}")
    prediction = network.predict(x_test).argmax(axis=1)
    recalls[name] = [(prediction[data.t_test == digit] == digit).mean() for digit in range(10)]

figure, axes = plt.subplots()
axes.bar(np.arange(10) - 0.2, recalls["with Relu2"], 0.4, color="black", label="with Relu2")
axes.bar(np.arange(10) + 0.2, recalls["without"], 0.4, color="0.75", label="without")
axes.set_xticks(range(10))
axes.set_xlabel("digit")
axes.set_ylabel("share recognised")
figure.legend(loc="outside upper right", ncols=2, frameon=False)
plt.show()
assert min(recalls["with Relu2"]) == 0
assert min(recalls["without"]) > 0.7

# %% [markdown] lang="en"
r"""
At least one digit is never recognised, whatever the image. The book ends its network in Affine2, and so do we. Here is
our own network, from the layers of this page. `value_and_gradient` is back propagation: each turn of its loop goes back by one layer.
"""

# %% [markdown] lang="ko"
r"""
적어도 숫자 하나는 어떤 이미지가 와도 알아맞히지 못합니다. 책의 신경망은 Affine2로 끝나고, 우리도 그렇게 합니다. 지금까지
만든 계층으로 신경망을 조립하면 이렇습니다. `value_and_gradient`가 곧 역전파이고, 반복문이 한 번 돌 때마다 계층을
하나씩 거슬러 올라갑니다.
"""


# %%
class TwoLayerNet:
    def __init__(self, input_size, hidden_size, output_size, rng, weight_init_std=0.1, dtype=np.float64):
        self.params = {}
        for name, shape in (("Affine1", (input_size, hidden_size)), ("Affine2", (hidden_size, output_size))):
            W = rng.normal(0, weight_init_std, shape).astype(dtype)
            self.params[name] = {"W": W, "b": np.zeros(shape[1], dtype)}
        self.layers = [Affine(**self.params["Affine1"]), ReLU(), Affine(**self.params["Affine2"])]
        self.last = SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        return self.last.forward(self.predict(x), t)

    def value_and_gradient(self, x, t):
        loss = self.loss(x, t)
        dout = self.last.backward()
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        affine1, _, affine2 = self.layers
        return loss, {"Affine1": {"W": affine1.dW, "b": affine1.db}, "Affine2": {"W": affine2.dW, "b": affine2.db}}

    def gradient(self, x, t):
        return self.value_and_gradient(x, t)[1]

    def accuracy(self, x, t):
        return (self.predict(x).argmax(axis=1) == t.argmax(axis=1)).mean()


network = TwoLayerNet(D, 50, 10, np.random.default_rng(0))
print("loss before training:", network.loss(x_train[:100], t_train[:100]), " log 10:", np.log(10))

# %% [markdown] lang="en"
r"""
## The gradient check

Now the check that the notebook printed, on its first three images. For each parameter it has the mean size of the gradient
by hand, of the numerical one, and of their difference. First as written, then with softmax cured, then with the parameters
put back as well. (The notebook checks 50 hidden units; with 10 we wait less and see the same.)
"""

# %% [markdown] lang="ko"
r"""
## 기울기 검산

이제 노트북이 출력했던 검산을 처음 이미지 세 장으로 해 보겠습니다. 매개변수마다 손으로 구한 기울기, 수치 미분, 그리고
둘의 차이의 평균 크기가 나옵니다. 먼저 원래 코드로, 다음에는 소프트맥스를 고친 뒤에, 그다음에는 매개변수를 되돌려 놓는
것까지 고친 뒤에 실행합니다. (노트북의 은닉층은 50개인데, 10개로 하면 훨씬 빨리 끝나고 보이는 것은 같습니다.)
"""

# %% alt_en="Relative difference of four parameters: about 0.4 as written, less with defect 1 cured, below 1e-8 with defect 2 cured too" alt_ko="네 매개변수의 상대 차이: 원래 코드는 0.4 정도, 결함 1을 고치면 줄고, 결함 2까지 고치면 1e-8보다 작음"
x, t = x_train[:3], t_train[:3]
differences = {}
for state in ("as written", "1 cured", "1 and 2 cured"):
    print(state)
    notebook.softmax = written_softmax if state == "as written" else softmax
    if state == "1 and 2 cured":
        notebook._numerical_grad = lambda f, x: numerical_gradient(lambda: f(x), x)
    means = notebook.gradient_check(notebook.TwoLayerNet(D, 10, 10), x, t)
    differences[state] = [difference / by_hand for by_hand, _, difference in means.values()]

figure, axes = plt.subplots()
for (state, values), marker in zip(differences.items(), "sox", strict=True):
    axes.semilogy(list(means), values, color="black", linestyle="", marker=marker, fillstyle="none", label=state)
axes.set_ylabel("difference / gradient")
figure.legend(loc="outside upper right", ncols=3, frameon=False)
plt.show()

# %% [markdown] lang="en"
r"""
**Defect 9: nothing asserts.** The first block says that the two gradients differ by 29 % to 45 %, and the notebook goes on
to train. A number that must be read by somebody is no check. A check is a line that stops the program:
"""

# %% [markdown] lang="ko"
r"""
**결함 9: 확인하지 않습니다.** 첫 번째 묶음은 두 기울기가 29 %에서 45 %까지 다르다고 말하는데, 노트북은 그대로 학습으로
넘어갑니다. 누군가 읽어 주어야 하는 숫자는 검산이 아닙니다. 검산이란 틀렸을 때 프로그램을 멈추는 코드입니다.
"""


# %%
def assert_gradients_agree(network, x, t, tolerance=1e-6):
    by_hand = network.gradient(x, t)
    for name, leaves in network.params.items():
        for leaf, array in leaves.items():
            numerical = numerical_gradient(lambda: network.loss(x, t), array)
            error = np.linalg.norm(by_hand[name][leaf] - numerical) / np.linalg.norm(numerical)
            assert error < tolerance, f"{name}.{leaf}: relative error {error:.0e}"


assert_gradients_agree(TwoLayerNet(D, 10, 10, np.random.default_rng(0)), x, t)

# %% tags=["raises-exception"]
notebook.softmax = written_softmax
assert_gradients_agree(notebook.TwoLayerNet(D, 10, 10), x, t)

# %% [markdown] lang="en"
r"""
The two lines of `assert_gradients_agree` that matter, the norm and the tolerance, leave questions open. Why $10^{-6}$?
What if a gradient is 0, or $x$ lies at the kink of ReLU? Which layer is to blame? And two loss evaluations per
parameter are many. `check_network` measures the noise instead of guessing a tolerance, moves all parameters at once along
random directions, and checks each layer alone:
"""

# %% [markdown] lang="ko"
r"""
`assert_gradients_agree`에서 중요한 두 줄, 곧 노름과 허용 오차는 의문을 남깁니다. 왜 $10^{-6}$일까요? 기울기가
0이거나 $x$가 ReLU의 꺾이는 점에 있으면 어떻게 될까요? 어느 계층이 잘못일까요? 게다가 매개변수마다 손실을 두 번씩
계산하는 것은 너무 많습니다. `check_network`는 허용 오차를 짐작하는 대신 잡음을 재고, 모든 매개변수를 무작위
방향으로 한꺼번에 움직이며, 계층도 하나씩 따로 검사합니다.
"""

# %% tags=["raises-exception"]
check_network(notebook.TwoLayerNet(D, 10, 10), x, t).raise_if_failed()

# %% [markdown] lang="en"
r"""
Read it from the top. Both ReLU layers overwrite `dout`, which is defect 4. The layer `last` ignores `dout`, which is defect
5, and its gradient is not that of its own forward pass, which is defect 1. The Affine layers are right and receive a
wrong gradient. Our network passes:
"""

# %% [markdown] lang="ko"
r"""
위에서부터 읽어 보겠습니다. 두 ReLU 계층이 `dout`을 덮어쓰는데, 결함 4입니다. 계층 `last`는 `dout`을 무시하는데, 결함
5입니다. 게다가 그 기울기는 자기 순전파의 기울기가 아닌데, 결함 1입니다. Affine 계층은 맞지만 틀린 기울기를 받고
있습니다. 우리 신경망은 통과합니다.
"""

# %%
print(check_network(TwoLayerNet(D, 10, 10, np.random.default_rng(0)), x, t).verdict)

# %% [markdown] lang="en"
r"""
## Training

Stochastic gradient descent draws 100 images, computes the gradient, and moves each parameter a little against it:
$W \leftarrow W - \eta \, \partial L / \partial W$. The factor $\eta$ is the learning rate.

**Defect 8: a learning rate of 0.01.** With everything else cured, this is the choice that remains. Compare it with 0.1
over 1,000 steps:
"""

# %% [markdown] lang="ko"
r"""
## 학습

확률적 경사 하강법은 이미지 100장을 무작위로 뽑아 기울기를 구하고, 매개변수를 기울기의 반대 방향으로 조금씩 움직입니다.
$W \leftarrow W - \eta \, \partial L / \partial W$이고, $\eta$가 학습률입니다.

**결함 8: 학습률 0.01.** 다른 결함을 모두 고치고 나면 이 선택이 남습니다. 1,000번 갱신하는 동안 0.1과 비교해 보겠습니다.
"""


# %% alt_en="Test accuracy over 1,000 steps: the curve of 0.1 is above that of 0.01 everywhere" alt_ko="1,000번의 갱신 동안 시험 정확도: 0.1의 곡선이 0.01의 곡선보다 항상 위에 있음"
def train(network, x_train, t_train, batches, learning_rate):
    """Trains in place; yields the number and the loss of each step."""
    for step, batch in enumerate(batches, start=1):
        loss, gradient = network.value_and_gradient(x_train[batch], t_train[batch])
        for name, leaves in gradient.items():
            for leaf, grad in leaves.items():
                network.params[name][leaf] -= learning_rate * grad
        yield step, loss


batches = np.random.default_rng(0).integers(len(x_train), size=(1000, 100))
figure, axes = plt.subplots()
for learning_rate, style in ((0.1, "-"), (0.01, "--")):
    network = TwoLayerNet(D, 50, 10, np.random.default_rng(0))
    run = train(network, x_train, t_train, batches, learning_rate)
    curve = [(step, network.accuracy(x_test, t_test)) for step, _ in run if step % 50 == 0]
    axes.plot(*zip(*curve, strict=True), color="black", linestyle=style, label=f"learning rate {learning_rate}")
    print(f"learning rate {learning_rate:4}: test accuracy {curve[-1][1]:.3f} after 1,000 steps")
axes.set_xlabel("step")
axes.set_ylabel("test accuracy")
axes.legend(frameon=False)
plt.show()

# %% [markdown] lang="en"
r"""
In place `-=` matters here: the layers hold the same arrays as `params`, so both see the update. Writing
`params[name][leaf] = ...` would leave the layers with the old ones.

Now the whole run of the notebook, 10,000 steps on all 60,000 images. Single precision is enough to train, and
faster; for a check it would not be.
"""

# %% [markdown] lang="ko"
r"""
여기서는 제자리 연산 `-=`이 중요합니다. 계층은 `params`와 같은 배열을 가지고 있어서 양쪽 모두에 갱신이 반영됩니다.
`params[name][leaf] = ...`로 쓰면 계층에는 옛 배열이 남습니다.

이제 노트북의 학습 전체를, 이미지 60,000장으로 10,000번 갱신하며 실행합니다. 학습에는 단정밀도로 충분하고 더
빠릅니다. 검산에는 단정밀도로 부족합니다.
"""

# %%
one_hot = np.eye(10, dtype=np.float32)
network = TwoLayerNet(D, 50, 10, np.random.default_rng(0), dtype=np.float32)
initial = jax.tree.map(np.copy, network.params)
batches = np.random.default_rng(1).integers(len(data.x_train), size=(10_000, 100))

started = time.perf_counter()
losses = [loss for _, loss in train(network, data.x_train, one_hot[data.t_train], batches, 0.1)]
accuracy = network.accuracy(data.x_test, one_hot[data.t_test])
print(f"test accuracy {accuracy:.4f} in {time.perf_counter() - started:.0f} s")
assert not is_mnist or round(100 * accuracy) == 97

# %% [markdown] lang="en"
r"""
The network recognises 97 % of the test images. That is where the notebook wanted to arrive.

## The third way

All gradients of this page were derived by hand and checked by difference quotients. JAX derives them a third time. The
network below is the same, written as pure functions of parameters and images, and there is no `backward` anywhere. All three meet on the same parameters, in double precision:
"""

# %% [markdown] lang="ko"
r"""
신경망이 시험 이미지의 97 %를 알아맞힙니다. 노트북이 가려던 곳에 도착했습니다.

## 세 번째 방법

지금까지 모든 기울기를 손으로 유도하고 수치 미분으로 확인했습니다. JAX는 같은 기울기를 세 번째 방법으로 구합니다. 아래
신경망은 같은 것을 매개변수와 이미지의 순수 함수로 쓴 것이고, `backward`는 어디에도 없습니다. 같은
매개변수에서 세 방법을 배정밀도로 비교합니다.
"""

# %%
net = jaxnet.two_layer_net(D, 10, 10)
print(net)
small = TwoLayerNet(D, 10, 10, np.random.default_rng(0))
x, t = x_train[:3], t_train[:3]
by_hand = small.gradient(x, t)
with jax.enable_x64(True):
    automatic = jax.device_get(jax.grad(lambda params: jaxnet.loss(net, params, x, t))(small.params))
print("largest difference:  hand - quotients   hand - automatic   quotients - automatic")
for name, leaves in small.params.items():
    for leaf, array in leaves.items():
        numerical = numerical_gradient(lambda: small.loss(x, t), array)
        ways = by_hand[name][leaf], numerical, automatic[name][leaf]
        gaps = [abs(ways[i] - ways[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))]
        print(f"{name}.{leaf:9}  {gaps[0]:18.0e} {gaps[1]:18.0e} {gaps[2]:23.0e}")
        assert gaps[1] < 1e-14
        assert max(gaps) < 1e-8

# %% [markdown] lang="en"
r"""
By hand and automatic agree to the last digits. The quotients agree as well as quotients can. If your own backward pass
is wrong, it will differ from both, and that is how you know which one is wrong.

Because a pure function changes nothing behind one's back, JAX can also compile the whole run, with all its steps, into a
single program. From the same parameters on the same batches:
"""

# %% [markdown] lang="ko"
r"""
손으로 구한 값과 자동 미분은 마지막 자리까지 일치합니다. 수치 미분은 수치 미분이 낼 수 있는 정확도만큼 일치합니다. 여러분이
쓴 역전파가 틀렸다면 둘 모두와 어긋날 것이고, 그래서 어느 쪽이 틀렸는지 알 수 있습니다.

순수 함수는 보이지 않는 곳에서 아무것도 바꾸지 않으므로, JAX는 모든 갱신을 포함한 학습 전체를 프로그램 하나로 컴파일할
수도 있습니다. 같은 매개변수에서 출발해 같은 배치로 학습하면 이렇습니다.
"""

# %% alt_en="Loss of each step on a log axis, and the accuracies on training and test images" alt_ko="로그 축에 그린 갱신별 손실과, 훈련 이미지와 시험 이미지의 정확도"
net = jaxnet.two_layer_net(D, 50, 10)
started = time.perf_counter()
run = jaxnet.fit(net, jax.tree.map(jnp.asarray, initial), data, batches, optimizer="sgd", eval_every=1000)
print(f"test accuracy {run.history.test_accuracy[-1]:.4f} in {time.perf_counter() - started:.0f} s, with compilation")
print(f"largest difference of the two losses in the first 100 steps: {abs(run.history.loss - losses)[:100].max():.0e}")
assert abs(run.history.loss - losses)[:100].max() < 1e-4
jaxnet.plots.learning_curves(run)

# %% [markdown] lang="en"
r"""
## The nine defects

| | defect | how it showed | cure |
|---|---|---|---|
| 1 | softmax over the whole batch | loss 6.9 at the start, then `nan` | by rows, `axis=1` and `keepdims` |
| 2 | the parameter is not put back | every parameter moves by 0.0001 | save it and restore it |
| 3 | all rows move at once | every row has the sum of its column | one value per row, or refuse |
| 4 | `ReLU.backward` writes into `dout` | a 5 of the caller became a 0 | return a new array |
| 5 | the loss layer ignores `dout` | the same gradient for $L$ and $3L$ | multiply |
| 6 | the logarithm of 0 | infinity or `nan` beyond a gap of 745 | log-softmax of the logits |
| 7 | `Relu2` after the last layer | digits that are never recognised | end in Affine2 |
| 8 | a learning rate of 0.01 | less accurate after 1,000 steps | 0.1 |
| 9 | nothing asserts | 30 % printed, and on it went | `assert` |

## Exercises

1. Write a `Tanh` layer with `forward` and `backward`, and pass it to `check_layer`. The derivative of tanh is $1 - y^2$.
2. Divide `db` by $N$ in `Affine`, as if it were a mean. Read what the report of `check_layer` says about it.
3. Let a softmax layer without loss return $p$, and derive `dx = p * (dout - (dout * p).sum(axis=1, keepdims=True))` from
   the derivatives above. Check it.
4. Add `ReLU()` at the end of `self.layers` and check the network again. Defect 7 passes the check. Why?

For the last one: the gradient of a bad idea can be right. A check of gradients tells whether you differentiated the
function that you wrote, not whether you wrote a good one.

[The guide to the checker](../crosscheck.md) tells what else it compares, and
[the reference](../api/crosscheck.md) has its functions.
"""

# %% [markdown] lang="ko"
r"""
## 결함 아홉 개

| | 결함 | 증상 | 고치는 방법 |
|---|---|---|---|
| 1 | 배치 전체에 적용한 소프트맥스 | 처음 손실 6.9, 나중에는 `nan` | 행마다, `axis=1`과 `keepdims` |
| 2 | 매개변수를 되돌려 놓지 않음 | 모든 매개변수가 0.0001씩 움직임 | 저장했다가 되돌리기 |
| 3 | 모든 행이 한꺼번에 움직임 | 모든 행에 열의 합이 들어감 | 행마다 값 하나, 아니면 거부 |
| 4 | `ReLU.backward`가 `dout`을 덮어씀 | 호출한 쪽의 5가 0으로 바뀜 | 새 배열 돌려주기 |
| 5 | 손실 계층이 `dout`을 무시함 | $L$과 $3L$의 기울기가 같음 | 곱하기 |
| 6 | 0의 로그 | 차이가 745를 넘으면 무한대나 `nan` | 로짓의 log-softmax |
| 7 | 마지막 계층 뒤의 `Relu2` | 결코 알아맞히지 못하는 숫자 | Affine2로 끝내기 |
| 8 | 학습률 0.01 | 1,000번 갱신한 뒤의 정확도가 낮음 | 0.1 |
| 9 | 확인하지 않음 | 30 %를 출력하고도 계속 진행 | `assert` |

## 연습 문제

1. `forward`와 `backward`를 가진 `Tanh` 계층을 만들어 `check_layer`에 넣어 보세요. tanh의 미분은 $1 - y^2$입니다.
2. `Affine`의 `db`를 평균인 것처럼 $N$으로 나누고, `check_layer`의 보고서가 무엇이라고 하는지 읽어 보세요.
3. 손실 없이 $p$를 돌려주는 소프트맥스 계층을 만들고, 위의 미분에서
   `dx = p * (dout - (dout * p).sum(axis=1, keepdims=True))`를 유도한 다음 검사해 보세요.
4. `self.layers` 끝에 `ReLU()`를 더하고 신경망을 다시 검사해 보세요. 결함 7은 검사를 통과합니다. 왜 그럴까요?

마지막 문제의 답은 이렇습니다. 좋지 않은 설계라도 기울기는 맞을 수 있습니다. 기울기 검산은 여러분이 쓴 함수를 올바르게
미분했는지를 알려 줄 뿐, 좋은 함수를 썼는지는 알려 주지 않습니다.

[검사 도구 안내](../crosscheck.md)에는 그 밖에 무엇을 비교하는지가, [참조 문서](../api/crosscheck.md)에는 함수 설명이
있습니다.
"""
