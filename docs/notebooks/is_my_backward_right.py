# %% [markdown] lang="en"
r"""
# Is my backward right?

You have written a backward pass by hand. The network trains, the loss falls. Is the gradient right? Training does not
tell: many wrong gradients still point downhill, only less well. This page shows what does tell, and how far.

We derive a layer on paper, write it with a natural mistake, and let the checker of this project find it. Then we ask what
such a check can know. How small an error does it see? What do float32, half precision and kinks change? Which layer of a
network is wrong? And what does it mean when the answer is neither yes nor no?

You need the chain rule and NumPy, and half an hour. Run the cells yourself as you read.
[The first notebook](back_propagation.md) derives the layers of a small network, if you want to begin there.
"""

# %% [markdown] lang="ko"
r"""
# 내 역전파는 맞을까?

역전파를 손으로 썼습니다. 신경망은 학습이 되고 손실도 줄어듭니다. 그렇다면 기울기는 맞을까요? 학습만 보아서는 알 수
없습니다. 틀린 기울기도 대개는 내리막을 가리키고, 다만 덜 정확할 뿐이기 때문입니다. 이 글에서는 무엇으로 알 수
있는지, 그리고 어디까지 알 수 있는지 살펴봅니다.

먼저 계층 하나를 종이 위에서 유도하고, 흔한 실수를 하나 넣어 코드로 쓴 다음, 이 프로젝트의 검사 도구가 그 실수를 찾게
합니다. 그러고 나서 이런 검사가 무엇을 알 수 있는지 묻습니다. 얼마나 작은 오차까지 보일까요? float32와 반정밀도, 꺾이는
점에서는 무엇이 달라질까요? 신경망에서 틀린 계층은 어느 것일까요? 맞다는 답도 틀리다는 답도 나오지 않을 때는 무슨 뜻일까요?

연쇄 법칙과 NumPy를 알고 있으면 충분합니다. 반 시간쯤 잡고, 셀을 직접 실행하면서 읽기를 권합니다. 기초부터 시작하고 싶다면
[첫 번째 노트북](back_propagation.ko.md)에서 작은 신경망의 계층을 하나씩 유도합니다.
"""

# %%
import textwrap
import warnings

import matplotlib.pyplot as plt
import numpy as np

from jaxnet.crosscheck import check, check_function, check_layer, check_network

np.set_printoptions(precision=4, suppress=True)
plt.rc("figure", figsize=(6, 3.4), dpi=150)
plt.rc("figure.constrained_layout", use=True)
plt.rc("axes.spines", top=False, right=False)
plt.rc("axes", grid=True, axisbelow=True)
plt.rc("grid", color="0.9")
plt.rc("font", size=11)

# %% [markdown] lang="en"
r"""
## A layer on paper

RMSNorm divides each row of $x$, of shape $(N, D)$, by its root mean square, and multiplies each column by a parameter
$g$, of shape $(D)$. It stands in most large language models. For one row, with $D$ elements,

$$r = \sqrt{\frac{1}{D} \sum_i x_i^2}, \qquad n_i = \frac{x_i}{r}, \qquad y_i = n_i \, g_i.$$

(In practice a tiny $\varepsilon$ is added under the root, for rows of zeros. It is a constant and changes nothing below.)

Let $d_i = \partial L / \partial y_i$ be what arrives from above, in code `dout`. The parameter is easy: $g_i$ meets
$n_i$ in every row, so $\partial L / \partial g_i$ is the sum of $d_i \, n_i$ over the rows.

Now $x$. It takes two paths to $y_i$: directly through the numerator, and through $r$. First $r$. From
$r^2 = \frac{1}{D} \sum_i x_i^2$ follows $2 r \, \partial r / \partial x_j = 2 x_j / D$, and therefore

$$\frac{\partial r}{\partial x_j} = \frac{x_j}{D \, r} = \frac{n_j}{D}.$$

The quotient rule puts both paths together. $\delta_{ij}$ is 1 if $i = j$, and 0 otherwise:

$$\frac{\partial n_i}{\partial x_j} = \frac{\delta_{ij}}{r} - \frac{x_i}{r^2} \frac{\partial r}{\partial x_j}
= \frac{1}{r} \Big( \delta_{ij} - \frac{n_i \, n_j}{D} \Big).$$

Last, the sum over all $y_i$ that $x_j$ reaches:

$$\frac{\partial L}{\partial x_j} = \sum_i d_i \, g_i \frac{\partial n_i}{\partial x_j}
= \frac{1}{r} \Big( d_j \, g_j - n_j \cdot \frac{1}{D} \sum_i d_i \, g_i \, n_i \Big).$$

And here is a way to get it wrong: treat $r$ as a number that is simply there. Then $y = x g / r$, the derivative is
$g / r$, and the second term is gone.
"""

# %% [markdown] lang="ko"
r"""
## 종이 위에서 유도하기

RMSNorm은 형상이 $(N, D)$인 $x$의 행마다 제곱 평균의 제곱근으로 나누고, 열마다 형상이 $(D)$인 매개변수 $g$를
곱합니다. 대규모 언어 모델에는 대부분 이 계층이 들어 있습니다. 원소가 $D$개인 행 하나만 보면 다음과 같습니다.

$$r = \sqrt{\frac{1}{D} \sum_i x_i^2}, \qquad n_i = \frac{x_i}{r}, \qquad y_i = n_i \, g_i.$$

(실제로는 모든 원소가 영인 행에 대비해 제곱근 안에 아주 작은 $\varepsilon$을 더합니다. 상수이므로 아래 내용은 달라지지
않습니다.)

위에서 내려오는 기울기를 $d_i = \partial L / \partial y_i$라 하고, 코드에서는 `dout`이라 쓰겠습니다. 매개변수는 쉽습니다.
$g_i$는 모든 행에서 $n_i$와 곱해지므로, $\partial L / \partial g_i$는 $d_i \, n_i$를 모든 행에 대해 더한 값입니다.

이제 $x$ 차례입니다. 여기서 $y_i$로 가는 길은 둘입니다. 분자를 거쳐 곧바로 가는 길과 $r$을 거쳐 가는 길입니다. 먼저 $r$을
보겠습니다. $r^2 = \frac{1}{D} \sum_i x_i^2$에서 $2 r \, \partial r / \partial x_j = 2 x_j / D$이므로 다음과 같습니다.

$$\frac{\partial r}{\partial x_j} = \frac{x_j}{D \, r} = \frac{n_j}{D}.$$

몫의 미분법이 두 길을 합쳐 줍니다. $\delta_{ij}$는 $i = j$이면 1이고 아니면 0입니다.

$$\frac{\partial n_i}{\partial x_j} = \frac{\delta_{ij}}{r} - \frac{x_i}{r^2} \frac{\partial r}{\partial x_j}
= \frac{1}{r} \Big( \delta_{ij} - \frac{n_i \, n_j}{D} \Big).$$

마지막으로 $x_j$가 영향을 주는 모든 $y_i$에 대해 더합니다.

$$\frac{\partial L}{\partial x_j} = \sum_i d_i \, g_i \frac{\partial n_i}{\partial x_j}
= \frac{1}{r} \Big( d_j \, g_j - n_j \cdot \frac{1}{D} \sum_i d_i \, g_i \, n_i \Big).$$

여기서 틀리기 쉬운 길이 하나 있습니다. $r$을 그냥 주어진 수로 여기는 것입니다. 그러면 $y = x g / r$이고 미분은 $g / r$이
되어, 둘째 항이 사라집니다.
"""


# %%
class WrongRMSNorm:
    def __init__(self, g):
        self.g = g  # (D,)

    def forward(self, x):  # (N, D)
        self.r = np.sqrt((x**2).mean(axis=1, keepdims=True))  # (N, 1)
        self.n = x / self.r  # (N, D)
        return self.n * self.g  # (N, D)

    def backward(self, dout):  # (N, D)
        self.dg = (dout * self.n).sum(axis=0)  # (D,)
        return dout * self.g / self.r  # (N, D): r is treated as a constant


rng = np.random.default_rng(0)
g = rng.uniform(0.5, 1.5, size=4)
x = rng.normal(size=(3, 4))
report = check_layer(WrongRMSNorm(g), x)
print(report.text(width=60))
wrong = report.leaves[1]
assert (wrong.name, report.leaves[0].verdict.name, wrong.verdict.name) == ("x", "PASS", "FAIL")
assert "mean square is missing" in wrong.diagnosis
assert "proportional to x" in wrong.diagnosis

# %% [markdown] lang="en"
r"""
## How to read the report

The check ran `forward` many times at shifted inputs, and `backward` a few times. It compares `backward` with the slopes
of `forward`: nothing else is known about the layer.

- **The first line** is the verdict on the whole: PASS, FAIL or INCONCLUSIVE.
- **The sentence** tells the mistake, if it is a common one. Here it says that the term through the mean square is missing.
  That is our second term. The error is *proportional to x* in each row, and indeed the missing term is a multiple
  of $n$, hence of $x$.
- **The element** where the two differ most comes next, with both values. *Analytic* is yours, *numerical* is the
  slope of `forward`. Compute this element on paper if you doubt the verdict.
- **The table** has one row for each array with a gradient. The *relative error* is the largest difference, divided by
  the size of the gradient. *Explained* is the largest error that rounding and step sizes alone could cause. A verdict
  compares these two. There is no tolerance to choose.

`g` passes, so the mistake is in `dx` alone. In a notebook, the value of a cell shows the same as tables, with a map of the
elements that are wrong and the errors by step size:
"""

# %% [markdown] lang="ko"
r"""
## 보고서 읽는 법

검사 도구는 입력을 조금씩 움직이며 `forward`를 여러 번, `backward`를 몇 번 실행합니다. 그리고 `backward`의 결과를
`forward`의 수치 미분과 비교합니다. 계층에 대해 그 밖에 아는 것은 없습니다.

- **첫 줄**은 전체에 대한 판정으로, PASS, FAIL, INCONCLUSIVE 가운데 하나입니다.
- **설명 문장**은 흔한 실수일 때 무엇이 틀렸는지 알려 줍니다. 여기서는 제곱 평균을 거치는 항이 빠졌다고 합니다. 앞에서
  사라진 둘째 항입니다. 행마다 오차가 *x에 비례한다*고도 하는데, 빠진 항은 실제로 $n$의 배수이고 따라서 $x$의
  배수입니다.
- **원소**는 둘의 차이가 가장 큰 자리이며, 두 값이 함께 나옵니다. *analytic*은 여러분의 값이고 *numerical*은 `forward`에서
  잰 값입니다. 판정이 의심스러우면 이 원소를 종이 위에서 계산해 보면 됩니다.
- **표**에는 기울기를 가진 배열마다 행이 하나씩 있습니다. *relative error*는 가장 큰 차이를 기울기의 크기로 나눈 상대
  오차입니다. *explained*는 반올림과 간격만으로 생길 수 있는 가장 큰 오차입니다. 판정은 이 둘을 비교해서 내립니다.
  허용 오차를 고를 필요가 없습니다.

`g`는 통과했으므로 `dx`만 틀렸습니다. 노트북에서 셀의 마지막 값으로 두면 같은 내용이 표로 나오고, 틀린 원소의 지도와 간격에
따른 오차도 함께 보입니다.
"""

# %%
check_layer(WrongRMSNorm(g), x)

# %% [markdown] lang="en"
r"""
Now the whole derivative:
"""

# %% [markdown] lang="ko"
r"""
이제 미분을 끝까지 씁니다.
"""


# %%
class RMSNorm(WrongRMSNorm):
    def backward(self, dout):  # (N, D)
        self.dg = (dout * self.n).sum(axis=0)  # (D,)
        dn = dout * self.g  # (N, D)
        return (dn - self.n * (dn * self.n).mean(axis=1, keepdims=True)) / self.r  # (N, D)


report = check_layer(RMSNorm(g), x)
print(report)
assert report
assert "detects" in str(report)

dout, dx = rng.normal(size=x.shape), {}
for layer in (WrongRMSNorm(g), RMSNorm(g)):
    layer.forward(x)
    dx[type(layer).__name__] = layer.backward(dout)  # (N, D)
    print(f"{type(layer).__name__:12}  x · dx of each row:", (x * dx[type(layer).__name__]).sum(axis=1).round(12) + 0.0)
assert np.allclose((dx["WrongRMSNorm"] * dx["RMSNorm"]).sum(axis=1), (dx["RMSNorm"] ** 2).sum(axis=1))

# %% [markdown] lang="en"
r"""
PASS. The two lines after it are a check of another kind. If a row of $x$ is doubled, $r$ doubles too, and $y$ stays. So the
slope along $x$ itself must be 0, $\sum_j x_j \, \partial L / \partial x_j = 0$. The right layer has this property, the wrong
one has not. It is good to know such a property of one's layer.

It also tells why training would not have warned us. The right gradient is the wrong one with its part along $x$ taken
away. So the product of the two is the square of the right one, as the `assert` confirms. It is never negative:
to first order, a step against the wrong gradient never raises the loss.

## What a PASS certifies

The report ends in a promise: an error is caught with probability 0.99 if its norm is at least the one after `detects`.
Do not take its word for it. We plant errors on purpose. The layer becomes a loss $L = \sum C y$ with fixed numbers $C$, and to
its right gradient we add a random array $E$, whose norm is a multiple of the promised size. For each multiple, there are ten
such arrays.
"""

# %% [markdown] lang="ko"
r"""
PASS입니다. 그다음 두 줄은 다른 방식의 검산입니다. $x$의 한 행을 두 배로 하면 $r$도 두 배가 되어 $y$는 그대로입니다.
그러므로 $x$ 방향의 기울기는 0이어야 합니다. $\sum_j x_j \, \partial L / \partial x_j = 0$입니다. 올바른 계층은 이
성질을 가지고, 틀린 계층은 그렇지 않습니다. 자기 계층에 이런 성질이 있다면 알아 두는 것이 좋습니다.

학습이 왜 경고해 주지 않았을지도 이것으로 알 수 있습니다. 올바른 기울기는 틀린 기울기에서 $x$ 방향의 성분을 뺀 것입니다.
그래서 둘의 내적은 올바른 기울기의 제곱과 같고, 셀의 `assert`가 이를 확인합니다. 이 값은 음수가 될 수
없습니다. 틀린 기울기의 반대 방향으로 움직여도, 일차 근사에서는 손실이 커지는 일이 없습니다.

## PASS가 보증하는 것

보고서는 약속으로 끝납니다. 노름이 `detects` 뒤의 값 이상인 오차는 0.99의 확률로 잡아낸다는 것입니다. 그대로 믿지 말고
일부러 오차를 심어 보겠습니다. 계층을 고정된 수 $C$로 손실 $L = \sum C y$로 만들고, 올바른 기울기에 무작위 배열 $E$를 더합니다. 그 노름은
약속한 크기의 몇 배로 정하고, 배수마다 배열을 열 개씩 만듭니다.
"""

# %%
C = rng.normal(size=x.shape)  # (N, D)


def loss(x):
    return (C * RMSNorm(g).forward(x)).sum()


def gradient(x):
    layer = RMSNorm(g)
    layer.forward(x)
    return layer.backward(C)  # (N, D)


certified = check_function(loss, x, gradient=gradient, constants=("C", "g")).leaves[0].min_detectable_error
print(f"certified: errors of norm {certified:.0e}, where the gradient has norm {np.linalg.norm(gradient(x)):.2f}")

caught = {}
for multiple in (1 / 64, 1 / 16, 1 / 4, 1, 4):
    caught[multiple] = 0
    for E in np.random.default_rng(1).normal(size=(10, *x.shape)):
        E *= multiple * certified / np.linalg.norm(E)
        planted = check_function(loss, x, gradient=lambda x, E=E: gradient(x) + E, constants=("C", "g"))
        caught[multiple] += planted.verdict.name == "FAIL"
    print(f"{multiple:7.3f} times that: {caught[multiple]:2} of 10 found")
assert certified < 1e-8 * np.linalg.norm(gradient(x))
assert caught[1 / 64] == 0
assert caught[1] == caught[4] == 10

# %% [markdown] lang="en"
r"""
Far below the certificate nothing is found, and from the certificate on everything. Between them it depends on the
direction, because the promise holds for the worst one. So a PASS does not say "right". It says: *not wrong by more than
this*. That is all that an experiment can say, and it is nearly always enough: mistakes in a
formula are rarely as small as the eighth digit.

## Why the step size is hard

The numerical slope is a quotient. With a step $h$ and a function $f$,

$$\frac{f(x + h) - f(x - h)}{2h} = f'(x) + \frac{h^2}{6} f'''(x) + \dots$$

so the error falls with $h^2$. But the computer knows $f$ to a relative error $\varepsilon$ only, which becomes an error of about
$\varepsilon |f| / h$ in the quotient. The sum of both is smallest where they are about equal. If $f$ and its derivatives are of size 1,

$$h^2 \approx \frac{\varepsilon}{h}, \qquad h \approx \varepsilon^{1/3}, \qquad \text{error} \approx \varepsilon^{2/3}.$$

Float64 has $\varepsilon = 2 \cdot 10^{-16}$, so $h \approx 6 \cdot 10^{-6}$, and 10 digits are right. But derivatives are
not of size 1 in general. RMSNorm does not care about the scale of $x$: what $h$ is for $x$, $s h$ is for $s x$. The
best step moves along. Here is the error of the quotient for the *right* layer, at two scales:
"""

# %% [markdown] lang="ko"
r"""
약속한 크기보다 훨씬 작은 오차는 하나도 찾지 못하고, 약속한 크기부터는 모두 찾아냅니다. 그 사이는 방향에 따라 다릅니다. 약속은
가장 불리한 방향에서도 지켜져야 하기 때문입니다. 그러므로 PASS는 "맞다"는 뜻이 아닙니다. *이보다 크게 틀리지는 않다*는
뜻입니다. 실험으로 말할 수 있는 것은 여기까지이고, 거의 언제나 이것으로 충분합니다. 수식의 실수가
여덟째 자리의 오차만큼 작은 일은 드물기 때문입니다.

## 간격을 고르기 어려운 이유

수치 미분은 나눗셈으로 구합니다. 간격이 $h$이고 함수가 $f$라면 다음과 같습니다.

$$\frac{f(x + h) - f(x - h)}{2h} = f'(x) + \frac{h^2}{6} f'''(x) + \dots$$

그래서 오차는 $h^2$에 비례해 줄어듭니다. 그러나 컴퓨터가 아는 $f$에는 상대 오차 $\varepsilon$이 있고, 이것이 몫에서는
$\varepsilon |f| / h$ 정도의 오차가 됩니다. 둘의 합은 둘이 비슷해지는 곳에서 가장 작습니다. $f$와 그 미분의 크기가 1이라면 이렇습니다.

$$h^2 \approx \frac{\varepsilon}{h}, \qquad h \approx \varepsilon^{1/3}, \qquad \text{error} \approx \varepsilon^{2/3}.$$

float64에서는 $\varepsilon = 2 \cdot 10^{-16}$이므로 $h \approx 6 \cdot 10^{-6}$이고, 10자리까지 맞습니다. 그러나 미분의
크기가 늘 1인 것은 아닙니다. RMSNorm은 $x$의 크기와 상관없이 동작하므로, $x$에서의 간격 $h$는 $s x$에서의 간격 $s h$와
같습니다. 가장 좋은 간격도 따라서 움직입니다. *올바른* 계층에서 잰 수치 미분의 오차를 두 가지 크기에서 그려 보겠습니다.
"""


# %% alt_en="Two V curves of the same form on log axes; the one for small inputs lies a million times further left, and the fixed step of 1e-6 meets it at the top of its right arm" alt_ko="로그 축에 그린 같은 모양의 V자 곡선 두 개. 작은 입력의 곡선은 백만 배 왼쪽에 있고, 고정된 간격 1e-6은 그 오른쪽 가지의 꼭대기와 만남"
direction = rng.normal(size=x.shape)  # (N, D)


def quotient_errors(x, g, steps):
    """Returns the relative errors of the slope along one direction; dtypes are those of x and g."""
    layer = RMSNorm(g.astype(np.float64))
    layer.forward(x.astype(np.float64))
    exact = (layer.backward(dout) * direction).sum()
    layer, d, v = RMSNorm(g), dout.astype(x.dtype), direction.astype(x.dtype)
    slopes = [
        ((layer.forward(x + h * v) - layer.forward(x - h * v)) * d).sum() / (2 * h) for h in steps.astype(x.dtype)
    ]
    return abs(np.array(slopes, np.float64) / exact - 1)


figure, axes = plt.subplots()
for scale, style in ((1.0, "-"), (1e-6, "--")):
    steps = scale * 10.0 ** np.arange(-11, 0.6, 0.25)
    errors = quotient_errors(scale * x, g, steps)
    label = f"inputs of size {scale:.0e}: best at {steps[errors.argmin()]:.0e}"
    axes.loglog(steps, errors, color="black", linestyle=style, label=label)
axes.axvline(1e-6, color="0.5", linewidth=3, alpha=0.6)
axes.text(1.5e-6, 0.5, "h = 1e-6", transform=axes.get_xaxis_transform())
axes.set_xlabel("step h")
axes.set_ylabel("relative error of the slope")
figure.legend(loc="outside upper center", frameon=False)
plt.show()

# %% [markdown] lang="en"
r"""
To the right of each foot is the error of the series, to the left the rounding. A fixed step is good for one scale and
useless for the other: at inputs of size $10^{-6}$, a step of $10^{-6}$ is as large as the inputs.

A fixed tolerance has the same trouble in the other direction. Here is the usual checker in a few lines, with the default
figures of `torch.autograd.gradcheck`. It accepts a difference of `atol` plus `rtol` times the slope.
"""

# %% [markdown] lang="ko"
r"""
V자의 가장 낮은 곳에서 오른쪽은 급수의 오차이고 왼쪽은 반올림 오차입니다. 고정된 간격은 한 가지 크기에는 알맞지만 다른 크기에는
쓸모가 없습니다. 크기가 $10^{-6}$인 입력에서 간격 $10^{-6}$은 입력만큼이나 큽니다.

고정된 허용 오차에는 반대쪽으로 같은 문제가 있습니다. 흔히 쓰는 검사 도구를 `torch.autograd.gradcheck`의 기본값으로 몇 줄에
써 보면 아래와 같습니다. 차이가 `atol`에 기울기의 `rtol`배를 더한 값보다 작으면 받아들입니다.
"""


# %%
def fixed_check(layer, x, h=1e-6, atol=1e-5, rtol=1e-3):
    """Tells whether backward agrees with quotients of one step, and the relative error of their difference."""
    y = layer.forward(x)
    dout = np.random.default_rng(1).normal(size=y.shape).astype(x.dtype)
    dx = layer.backward(dout)
    numerical = np.empty_like(x)
    for i in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[i] = h
        numerical[i] = ((layer.forward(x + e) - layer.forward(x - e)) * dout).sum() / (2 * h)
    error = np.linalg.norm(dx - numerical) / np.linalg.norm(numerical)
    return "passes" if np.allclose(dx, numerical, atol=atol, rtol=rtol) else "fails", error


print("inputs of size   layer          fixed step and tolerance   check_layer")
answers = {}
for scale in (1e-6, 1.0, 1e6):
    for layer in (RMSNorm(g), WrongRMSNorm(g)):
        fixed, error = fixed_check(layer, scale * x)
        verdict = check_layer(layer, scale * x).verdict.name
        answers[scale, type(layer).__name__] = fixed, verdict, error
        print(f"{scale:14.0e}   {type(layer).__name__:12}   {fixed:6}, off by {error:6.1%}          {verdict}")
assert answers[1e-6, "RMSNorm"][:2] == ("fails", "PASS")
assert answers[1e6, "WrongRMSNorm"][:2] == ("passes", "FAIL")
assert answers[1.0, "RMSNorm"][:2] == ("passes", "PASS")
assert answers[1.0, "WrongRMSNorm"][:2] == ("fails", "FAIL")
assert round(100 * answers[1e-6, "RMSNorm"][2]) == 14
assert round(100 * answers[1e6, "WrongRMSNorm"][2]) == 51

# %% [markdown] lang="en"
r"""
Two of the six answers of the fixed check are wrong. At small inputs the *right* layer fails, by 14 %, because $h$ is far to the
right of the foot. At large inputs the gradients are of size $10^{-6}$, all differences are smaller than `atol`, and the
*wrong* layer passes, although it is off by 51 %. With gradients that small, a backward that returns 0 would pass too.

`check_layer` has no such figures. It measures how much rounding there is in `forward`, tries many steps along random
directions, combines steps so that the term with $h^2$ cancels (Richardson extrapolation), and derives from this
what is *explained*. All six verdicts are right.

## float32

Float32 has $\varepsilon = 1.2 \cdot 10^{-7}$. By the rule above, the best step is now $\varepsilon^{1/3} \approx 5 \cdot 10^{-3}$, and
the error there is $\varepsilon^{2/3} \approx 2 \cdot 10^{-5}$. Measured, it is of this order:
"""

# %% [markdown] lang="ko"
r"""
고정된 검사의 답 여섯 개 가운데 두 개가 틀렸습니다. 작은 입력에서는 *올바른* 계층이 14 % 어긋나 떨어집니다. $h$가 V자의
가장 낮은 곳보다 훨씬 오른쪽에 있기 때문입니다. 큰 입력에서는 기울기의 크기가 $10^{-6}$이라서 모든 차이가 `atol`보다 작고,
*틀린* 계층이 51 %나 어긋나는데도 통과합니다. 기울기가 이렇게 작으면 0만 돌려주는 역전파도 통과할 것입니다.

`check_layer`에는 그런 고정된 값이 없습니다. `forward`의 반올림이 얼마나 되는지 재고, 무작위 방향으로 여러 간격을 시험하며,
$h^2$의 항이 사라지도록 여러 간격을 조합합니다(리처드슨 외삽). *explained*는 여기서 나옵니다. 판정 여섯 개가 모두
맞습니다.

## float32

float32에서는 $\varepsilon = 1.2 \cdot 10^{-7}$입니다. 앞의 규칙에 따르면 가장 좋은 간격은
$\varepsilon^{1/3} \approx 5 \cdot 10^{-3}$이고, 그곳의 오차는 $\varepsilon^{2/3} \approx 2 \cdot 10^{-5}$입니다. 재어 보면 그 정도가 나옵니다.
"""

# %% alt_en="The V of float32 has its foot near 1e-3 and six digits higher than that of float64; the right arms are the same" alt_ko="float32의 V자는 가장 낮은 곳이 1e-3 근처에 있고 float64보다 여섯 자리 위에 있으며, 오른쪽 가지는 서로 같음"
steps = 10.0 ** np.arange(-9, 0.1, 0.25)
figure, axes = plt.subplots()
for dtype, style in ((np.float64, "-"), (np.float32, "--")):
    errors = quotient_errors(x.astype(dtype), g.astype(dtype), steps)
    eps = np.finfo(dtype).eps
    print(f"{dtype.__name__}: ε = {eps:.1e}, ε^(1/3) = {eps ** (1 / 3):.0e}, ε^(2/3) = {eps ** (2 / 3):.0e}")
    assert eps ** (2 / 3) / 10 < errors.min() < 10 * eps ** (2 / 3)
    axes.loglog(steps, errors, color="black", linestyle=style, label=f"{dtype.__name__}: at best {errors.min():.0e}")
axes.axvline(1e-6, color="0.5", linewidth=3, alpha=0.6)
axes.text(1.5e-6, 0.5, "h = 1e-6", transform=axes.get_xaxis_transform())
axes.set_xlabel("step h")
axes.set_ylabel("relative error of the slope")
figure.legend(loc="outside upper center", ncols=2, frameon=False)
plt.show()
x32, g32 = x.astype(np.float32), g.astype(np.float32)
print(
    "the right layer in float32, fixed step and tolerance: {}, relative error {:.0e}".format(
        *fixed_check(RMSNorm(g32), x32)
    )
)
assert fixed_check(RMSNorm(g32), x32)[0] == "fails"

# %% [markdown] lang="en"
r"""
With the step for float64, the quotients in float32 are noise, and the right layer fails. Two cases must be told apart.

**A layer that follows the dtype of its arrays,** such as ours, is checked in float64, where quotients are good. After
that, its float32 gradient is compared with its float64 gradient, so that a fault of float32 alone shows as well.

**A layer that computes in float32 whatever it gets,** such as a compiled kernel, cannot be helped like this. It is judged as
far as its noise allows, and the report says how far:
"""

# %% [markdown] lang="ko"
r"""
float64에 맞춘 간격을 float32에서 쓰면 수치 미분은 잡음뿐이고, 올바른 계층이 떨어집니다. 여기서 두 경우를 구별해야 합니다.

**배열의 dtype을 그대로 따르는 계층**은, 우리 계층도 그런데, 수치 미분이 잘되는 float64에서 검사합니다. 그런 다음 float32의
기울기를 float64의 기울기와 비교하므로, float32에서만 나타나는 오류도 드러납니다.

**무엇을 받든 float32로 계산하는 계층**, 예를 들어 컴파일된 커널은 그렇게 할 수 없습니다. 이런 계층은 잡음이 허락하는
데까지만 판정하고, 어디까지인지 보고서에 적습니다.
"""


# %%
class Kernel(RMSNorm):
    """Computes in float32, and multiplies its gradient by a factor, which should be 1."""

    def __init__(self, g, factor=1.0):
        super().__init__(g)
        self.factor = factor

    def forward(self, x):
        return super().forward(x.astype(np.float32))

    def backward(self, dout):
        return super().backward(dout.astype(np.float32)) * np.float32(self.factor)


follows, kernel = check_layer(RMSNorm(g32), x32), check_layer(Kernel(g32), x)
print(
    f"RMSNorm in float32: {follows.verdict.name}, errors of norm {follows.leaves[1].min_detectable_error:.0e} are caught"
)
print(kernel)
verdicts = {factor: check_layer(Kernel(g32, factor), x).verdict.name for factor in (1.00001, 1.001)}
print(verdicts)
assert follows
assert kernel
assert "note: x: computes in float32: judged to" in str(kernel)
assert verdicts == {1.00001: "PASS", 1.001: "FAIL"}

# %% [markdown] lang="en"
r"""
A factor of 1.001 is found in the kernel, and one of 1.00001 is not. The PASS did not promise it: `note: x: computes
in float32: judged to ...` is part of the answer. To see further, pass a `reference=`: the same function in JAX.

## Half precision

Float16 has 11 binary digits, $\varepsilon = 10^{-3}$, and any gradient in it has errors that would be shocking elsewhere. A
fixed tolerance must be so wide that real faults fit into it. The better question is: *is the error larger than rounding
explains?* Rounding the inputs, `dout` and the result once is unavoidable. `rounding_ratio` is the error divided by what
these roundings cause. A ratio of 1 or less is as good as float16 can be. We compare our layer, which rounds after every operation, with one
that computes in float32 and rounds the result, for few rows and for many:
"""

# %% [markdown] lang="ko"
r"""
커널에서 인수 1.001은 찾아내고 1.00001은 찾아내지 못합니다. PASS가 그것까지 약속하지는 않았습니다. `note: x: computes
in float32: judged to ...`도 답의 일부입니다. 더 작은 오차까지 보려면 같은 함수를 JAX로 써서 `reference=`로 넘깁니다.

## 반정밀도

float16은 이진수로 11자리, $\varepsilon = 10^{-3}$이어서, 기울기에 다른 곳이라면 놀랄 만한 오차가 늘 있습니다. 고정된 허용
오차는 진짜 오류가 숨을 만큼 넓어야 합니다. 더 나은 질문은 이것입니다. *오차가 반올림으로 설명되는 것보다 큰가?* 입력과
`dout`과 결과를 한 번씩 반올림하는 것은 피할 수 없습니다. `rounding_ratio`는 오차를 이 반올림이 만드는 오차로 나눈 값입니다.
1 이하면 float16으로서는 더할 나위 없습니다. 연산할 때마다 반올림하는 우리 계층을, float32로 계산하고 결과만 반올림하는
계층과 행이 적을 때와 많을 때 비교해 보겠습니다.
"""


# %%
class MixedRMSNorm(RMSNorm):
    """Computes in float32 at least, and returns what it was given: float16 for float16."""

    def forward(self, x):
        return super().forward(x.astype(np.result_type(x, np.float32))).astype(x.dtype)

    def backward(self, dout):
        dx = super().backward(dout.astype(np.result_type(dout, np.float32)))
        self.dg = self.dg.astype(dout.dtype)
        return dx.astype(dout.dtype)


g16 = g.astype(np.float16)
reports = {}
for rows in (8, 64, 4096):
    x16 = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float16)
    for layer in (MixedRMSNorm(g16), RMSNorm(g16)):
        report = reports[rows, type(layer).__name__] = check_layer(layer, x16)
        ratios = "   ".join(f"d{leaf.name} {leaf.rounding_ratio:5.2f}" for leaf in report.leaves)
        print(f"{rows:4} rows   {type(layer).__name__:12}   rounding ratio: {ratios}   {report.verdict.name}")
print(textwrap.fill(report.leaves[0].reason, 80))
assert all(leaf.rounding_ratio < 1 for rows in (8, 64, 4096) for leaf in reports[rows, "MixedRMSNorm"].leaves)
assert [reports[rows, "RMSNorm"].verdict.name for rows in (8, 64, 4096)] == ["PASS", "PASS", "FAIL"]
assert 2 < reports[64, "RMSNorm"].leaves[0].rounding_ratio < 5
assert np.float16(100) + np.float16(0.01) == 100
assert report.leaves[0].cause.name == "HALF_ACCUMULATION"
assert report.leaves[0].rounding_ratio > 10

# %% [markdown] lang="en"
r"""
With 8 rows our layer passes, with 4096 it fails, and not because a formula is wrong: `dg` is a sum over the rows, and
NumPy adds the rows in float16. A sum that has grown to 100 can no longer take up a term of 0.01. The reason says so, and
what to do: accumulate in float32. `MixedRMSNorm` does, and its ratios stay below 1. With 64 rows, the error of `dg` is
about four times that of rounding once. Rounding after each of the layer's operations explains as much, so it passes.

## Kinks

ReLU has no derivative at 0. To the left its slope is 0, to the right 1, and every number in between is called a
subgradient. The same holds for a maximum whose largest elements are equal. What may a checker say there? Not that one of
these slopes is right and the others wrong. But 2 is no slope of ReLU at all.
"""

# %% [markdown] lang="ko"
r"""
우리 계층은 행이 8개면 통과하고 4096개면 떨어지는데, 수식이 틀려서가 아닙니다. `dg`는 모든 행에 대한 합이고, NumPy는 행을
float16으로 더합니다. 100까지 커진 합은 0.01인 항을 더해도 더는 변하지 않습니다. 보고서의 이유가 이것을 말해 주고, float32로
누적하라고 알려 줍니다. `MixedRMSNorm`은 그렇게 하고, 비율은 1을 넘지 않습니다. 행이 64개면 `dg`의 오차는 한 번
반올림할 때의 약 네 배입니다. 계층의 연산마다 반올림하면 그만큼 커질 수 있으므로 통과합니다.

## 꺾이는 점

ReLU는 0에서 미분할 수 없습니다. 왼쪽에서는 기울기가 0, 오른쪽에서는 1이고, 그 사이의 수는 모두 부분 기울기(subgradient)라고
합니다. 가장 큰 원소가 여럿인 최댓값도 마찬가지입니다. 이런 곳에서 검사 도구는 무엇을 말할 수 있을까요? 이 기울기 가운데 하나는
맞고 나머지는 틀렸다고 할 수는 없습니다. 그러나 2는 결코 ReLU의 기울기가 아닙니다.
"""


# %%
class ReLU:
    def __init__(self, at_zero=0.0):
        self.at_zero = at_zero  # the derivative at 0

    def forward(self, x):
        self.slope = np.where(x == 0, self.at_zero, x > 0)
        return np.maximum(x, 0)

    def backward(self, dout):
        return dout * self.slope


class RowMax:
    def __init__(self, ties):
        self.ties = ties

    def forward(self, x):  # (N, D)
        largest = x == x.max(axis=1, keepdims=True)
        count = largest.sum(axis=1, keepdims=True)  # (N, 1)
        first = np.arange(x.shape[1]) == x.argmax(axis=1)[:, None]
        weights = {"first": first, "shared": largest / count, "each": largest, "half": largest / np.minimum(count, 2)}
        self.weights = weights[self.ties]  # (N, D)
        return x.max(axis=1)  # (N,)

    def backward(self, dout):  # (N,)
        return dout[:, None] * self.weights


at_zero = np.array([[-1.0, 0.0, 2.0], [1.0, -2.0, 3.0]])
tied = np.array([[3.0, 3.0, 3.0], [1.0, -2.0, 3.0]])
answers = {}
for layer, choice, inputs in (
    *((ReLU(slope), slope, at_zero) for slope in (0.0, 0.5, 1.0, 2.0)),
    *((RowMax(ties), ties, tied) for ties in ("first", "shared", "each", "half")),
):
    report = check_layer(layer, inputs)
    answers[choice] = fixed_check(layer, inputs)[0], report.verdict.name
    print(f"{type(layer).__name__:6}  {choice!s:6}  fixed: {answers[choice][0]:6}  check_layer: {answers[choice][1]}")
    words = report.leaves[0].reason or report.leaves[0].notes[0]
    print(textwrap.fill(words, 72, initial_indent=" " * 8, subsequent_indent=" " * 8))
assert [verdict for _, verdict in answers.values()] == ["PASS", "PASS", "PASS", "FAIL", "PASS", "PASS", "FAIL", "FAIL"]
assert [choice for choice, (fixed, _) in answers.items() if fixed == "passes"] == [0.5, "half"]

# %% [markdown] lang="en"
r"""
The fixed check accepts two answers, and both are accidents of the quotient, which averages the two sides. At a kink
of ReLU it measures 0.5, so it rejects the 0 that everybody uses. At a tie of three it measures 0.5 for each element, 1.5 in
all. That is wrong: when all three move together, the maximum moves just as far, so their slopes must sum to 1.
The checker tests exactly this. It accepts all of `dout` at the first of them, or a third for each, and rejects the rest.

For a PASS the note counts the elements at kinks. They are not covered by the certificate: whether 0 or 1 is
*the better choice* at the kink is not a question of right and wrong.

## A whole network

In a network, a wrong `backward` spoils all gradients before it, because it hands its wrong `dx` on. A list of wrong
gradients therefore does not tell where the mistake is. Here is a small network with RMSNorm in the middle:

```text
x ──────▶ Affine1 ──────▶ Norm ──────▶ ReLU ──────▶ Affine2 ──────▶ squared error ──▶ L
(4, 6)            (4, 5)       (4, 5)       (4, 5)          (4, 3)                   ()
```
"""

# %% [markdown] lang="ko"
r"""
고정된 검사가 받아들인 답은 두 개인데, 둘 다 우연입니다. 수치 미분이 양쪽의 평균을 재기 때문입니다. ReLU의 꺾이는 점에서는
0.5를 재므로, 누구나 쓰는 0을 거부합니다. 원소 셋이 같을 때는 원소마다 0.5를 재어 모두 1.5가 됩니다. 이것은 틀렸습니다. 셋이
함께 움직이면 최댓값도 꼭 그만큼 움직이므로, 셋의 기울기를 더하면 1이어야 합니다. 검사 도구는 바로 이것을
확인합니다. 첫째 원소가 `dout`을 모두 받거나 셋이 똑같이 나누면 받아들이고, 나머지는 거부합니다.

PASS일 때 덧붙는 설명에는 꺾이는 점에 있는 원소의 수가 나옵니다. 이 원소들은 보증에 들어가지 않습니다. 꺾이는 점에서 0과 1 가운데 어느
것이 *더 나은 선택*인지는 맞고 틀리고의 문제가 아닙니다.

## 신경망 전체

신경망에서 `backward` 하나가 틀리면 잘못된 `dx`를 넘겨주므로 그 앞의 기울기가 모두 망가집니다. 그래서 틀린 기울기의 목록만
보아서는 어디가 잘못인지 알 수 없습니다. 가운데에 RMSNorm이 있는 작은 신경망을 만들어 보겠습니다.

```text
x ──────▶ Affine1 ──────▶ Norm ──────▶ ReLU ──────▶ Affine2 ──────▶ squared error ──▶ L
(4, 6)            (4, 5)       (4, 5)       (4, 5)          (4, 3)                   ()
```
"""


# %%
class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, dout):
        self.dW = self.x.T @ dout
        self.db = dout.sum(axis=0)
        return dout @ self.W.T


class Network:
    def __init__(self, norm, rng):
        self.layers = {
            "Affine1": Affine(rng.normal(size=(6, 5)), rng.normal(size=5)),
            "Norm": norm(rng.uniform(0.5, 1.5, size=5)),
            "ReLU": ReLU(),
            "Affine2": Affine(rng.normal(size=(5, 3)), rng.normal(size=3)),
        }
        leaves = {"Affine1": "Wb", "Norm": "g", "Affine2": "Wb"}
        self.params = {name: {leaf: getattr(self.layers[name], leaf) for leaf in leaves[name]} for name in leaves}

    def loss(self, x, t):
        for layer in self.layers.values():
            x = layer.forward(x)
        self.error = x - t
        return (self.error**2).sum() / (2 * len(x))

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.error / len(x)
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        return {
            name: {leaf: getattr(self.layers[name], f"d{leaf}") for leaf in leaves}
            for name, leaves in self.params.items()
        }


batch, targets = rng.normal(size=(4, 6)), rng.normal(size=(4, 3))
report = check_network(Network(WrongRMSNorm, np.random.default_rng(0)), batch, targets)
print(report.text(width=64))
cured = check_network(Network(RMSNorm, np.random.default_rng(0)), batch, targets)
print("\nwith the right RMSNorm:", cured.verdict.name)
assert [layer.subject for layer in report.layers if layer.verdict.name == "FAIL"] == ["Norm"]
assert [leaf.name for leaf in report.leaves if leaf.verdict.name == "FAIL"] == ["Affine1.W", "Affine1.b"]
assert cured

# %% [markdown] lang="en"
r"""
The table accuses `Affine1`, and `Norm.g` even passes: by the table alone one would search in the wrong layer. But each layer
was also checked by itself, at the inputs that it meets in the network. So the first lines name `Norm`, and say of `Affine1`
that it is right and receives a wrong gradient.

## PyTorch

A `torch.autograd.Function` is a forward and a backward written by hand, and is checked as it stands. Beside
it we ask `torch.autograd.gradcheck`, PyTorch's own checker, with its defaults:
"""

# %% [markdown] lang="ko"
r"""
표는 `Affine1`을 지목하고, `Norm.g`는 오히려 통과합니다. 표만 보았다면 엉뚱한 계층을 뒤졌을 것입니다. 그러나 계층은 신경망
안에서 받는 바로 그 입력으로 하나씩 따로 검사되기도 합니다. 그래서 첫머리에 `Norm`의 이름이 나오고, `Affine1`은 맞지만 틀린
기울기를 받고 있다고 합니다.

## PyTorch

`torch.autograd.Function`은 손으로 쓴 순전파와 역전파이고, 있는 그대로 검사할 수 있습니다. PyTorch에 들어 있는 검사 도구인
`torch.autograd.gradcheck`에도 기본값으로 같이 물어보겠습니다.
"""

# %%
try:
    import torch
except ImportError:
    print("PyTorch is not installed here, so nothing was checked. The text below has the answers from PyTorch 2.13.")
else:

    class WrongNorm(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, g):
            r = x.square().mean(dim=1, keepdim=True).sqrt()
            ctx.save_for_backward(x / r, r, g)
            return x / r * g

        @staticmethod
        def backward(ctx, dout):
            n, r, g = ctx.saved_tensors
            return dout * g / r, (dout * n).sum(dim=0)

    class Norm(WrongNorm):
        @staticmethod
        def backward(ctx, dout):
            n, r, g = ctx.saved_tensors
            dn = dout * g
            return (dn - n * (dn * n).mean(dim=1, keepdim=True)) / r, (dout * n).sum(dim=0)

    warnings.filterwarnings("ignore", module="torch")  # gradcheck warns of float32
    answers = []
    for scale, dtype, settings in (  # and figures with which gradcheck is right
        (1.0, torch.float64, {}),
        (1e-6, torch.float64, {"eps": 1e-11}),
        (1e6, torch.float64, {"eps": 1.0, "atol": 1e-11}),
        (1.0, torch.float32, {"eps": 1e-3, "atol": 1e-2, "rtol": 1e-2}),
    ):
        for function in (Norm, WrongNorm):
            arrays = [torch.tensor(array, dtype=dtype, requires_grad=True) for array in (scale * x, g)]
            says = torch.autograd.gradcheck(function.apply, arrays, raise_exception=False)
            tuned = torch.autograd.gradcheck(function.apply, arrays, **settings, raise_exception=False)
            assert tuned == (function is Norm)
            answers.append((says, check(function.apply, *arrays).verdict.name))
            print(f"{function.__name__:9}  {scale:.0e} {dtype!s:13}  gradcheck: {says!s:5}  check: {answers[-1][1]}")
    assert answers == [
        (True, "PASS"),
        (False, "FAIL"),
        (False, "PASS"),
        (False, "FAIL"),
        (True, "PASS"),
        (True, "FAIL"),
        (False, "PASS"),
        (False, "FAIL"),
    ]

# %% [markdown] lang="en"
r"""
| inputs | `gradcheck`: right layer | wrong layer | `check`: right layer | wrong layer |
|---|---|---|---|---|
| float64, of size $1$ | True | False | PASS | FAIL |
| float64, of size $10^{-6}$ | **False** | False | PASS | FAIL |
| float64, of size $10^6$ | True | **True** | PASS | FAIL |
| float32, of size $1$ | **False** | False | PASS | FAIL |

The answers in bold are wrong, for the reasons that we have met. `gradcheck` warns of float32, and with other `eps`, `atol` and
`rtol` it is right in each row, as the cell asserts; but one must know them. With `order=2`, `check` also checks the derivative
of the gradient, as `gradgradcheck` does.

## What INCONCLUSIVE means

INCONCLUSIVE is the third answer: neither right nor wrong is proved. It always has a reason, and something to do about it. Here
are three that are common.

**An array without gradient.** This layer returns `dx` and forgets `dg`:
"""

# %% [markdown] lang="ko"
r"""
| 입력 | `gradcheck`: 올바른 계층 | 틀린 계층 | `check`: 올바른 계층 | 틀린 계층 |
|---|---|---|---|---|
| float64, 크기 $1$ | True | False | PASS | FAIL |
| float64, 크기 $10^{-6}$ | **False** | False | PASS | FAIL |
| float64, 크기 $10^6$ | True | **True** | PASS | FAIL |
| float32, 크기 $1$ | **False** | False | PASS | FAIL |

굵은 글씨는 틀린 답이고, 이유는 앞에서 본 그대로입니다. `gradcheck`는 float32일 때 경고를 내고, `eps`와 `atol`과 `rtol`을 바꾸면
어느 행에서든 맞는 답을 내는데, 셀에서 이것도 확인합니다. 다만 그 값을 알고 있어야 합니다. `order=2`를 넘기면 `check`는 `gradgradcheck`처럼
기울기의 미분도 검사합니다.

## INCONCLUSIVE의 뜻

INCONCLUSIVE는 세 번째 답입니다. 맞다는 것도 틀리다는 것도 증명되지 않았다는 뜻입니다. 언제나 이유가 적혀 있고, 무엇을 하면
되는지도 적혀 있습니다. 흔한 이유 셋을 보겠습니다.

**기울기가 없는 배열.** 이 계층은 `dx`를 돌려주지만 `dg`를 잊었습니다.
"""


# %%
class Frozen(RMSNorm):
    def backward(self, dout):
        dn = dout * self.g
        return (dn - self.n * (dn * self.n).mean(axis=1, keepdims=True)) / self.r


report = check_layer(Frozen(g), x)
print(report.text(width=60))
declared = check_layer(Frozen(g), x, constants=("g",))
print("with constants=('g',):", declared.verdict.name)
assert (report.verdict.name, declared.verdict.name) == ("INCONCLUSIVE", "PASS")

# %% [markdown] lang="en"
r"""
`g` affects the output. Is its gradient forgotten, or is it a constant on purpose? The checker cannot know. If it was
forgotten, write it; if `g` is frozen, say so with `constants=`.

**Too few digits.** An energy of ten billion changes by terms of size 1. Float64 has 16 digits, ten billion takes 11
of them, and few are left for the change:
"""

# %% [markdown] lang="ko"
r"""
`g`는 출력에 영향을 줍니다. 기울기를 잊은 것일까요, 아니면 일부러 상수로 둔 것일까요? 검사 도구는 알 수 없습니다. 잊었다면
기울기를 쓰고, `g`를 고정한 것이라면 `constants=`로 알려 줍니다.

**부족한 자릿수.** 값이 백억인 에너지가 크기 1인 항들에 따라 변합니다. float64는 16자리인데 백억이 그 가운데 11자리를 차지하므로, 변화를
나타낼 자리는 얼마 남지 않습니다.
"""


# %%
def energy(x, offset=1e10):
    return offset + np.sin(x).sum()


def force(x):
    return np.cos(x)


report = check_function(energy, x, gradient=force)
print(report.text(width=60))
rough = check_function(energy, x, gradient=force, resolution=1e-2)
shifted = check_function(lambda x: energy(x, offset=0.0), x, gradient=force)
print("with resolution=1e-2:", rough.verdict.name)
print(f"without the constant: {shifted.verdict.name}, judged to {shifted.leaves[0].relative_tolerance:.0e}")
assert [r.verdict.name for r in (report, rough, shifted)] == ["INCONCLUSIVE", "PASS", "PASS"]

# %% [markdown] lang="en"
r"""
The report says which errors it cannot resolve. If that is enough for you, accept it with `resolution=`, and the certificate
is as coarse as you allowed. Better is to leave out the constant, which has no gradient anyway.

**Random numbers in forward.** Dropout sets half of the elements to 0, and draws them anew each time. Two values of
`forward` then differ because of the draw, not because of the step:
"""

# %% [markdown] lang="ko"
r"""
보고서는 어느 크기의 오차부터 가려낼 수 없는지 알려 줍니다. 그 정도로 충분하다면 `resolution=`으로 받아들이면 되고, 그러면 보증도
허락한 만큼 거칠어집니다. 더 나은 방법은 상수를 빼는 것입니다. 상수에는 어차피 기울기가 없습니다.

**순전파의 난수.** 드롭아웃은 원소의 절반을 0으로 만드는데, 어느 원소인지를 매번 새로 뽑습니다. 그러면 `forward`의 두 값은
간격이 아니라 뽑기 때문에 달라집니다.
"""


# %%
class UnseededDropout:
    def forward(self, x):
        self.mask = np.random.default_rng().uniform(size=x.shape) < 0.5
        return 2 * x * self.mask

    def backward(self, dout):
        return 2 * dout * self.mask


class Dropout(UnseededDropout):
    def __init__(self, rng):
        self.rng = rng

    def forward(self, x):
        self.mask = self.rng.uniform(size=x.shape) < 0.5
        return 2 * x * self.mask


report = check_layer(UnseededDropout(), x)
print(report.text(width=60))
seeded = check_layer(Dropout(np.random.default_rng(0)), x)
print("with the generator in the layer:", seeded.verdict.name)
assert (report.verdict.name, seeded.verdict.name) == ("INCONCLUSIVE", "PASS")

# %% [markdown] lang="en"
r"""
A generator that the layer keeps is copied for each call, so that all calls draw the same mask. Your own generator does not
advance.

A test should treat INCONCLUSIVE as "not yet": `assert report` fails, because a report is true only for a PASS.

## Where to check from

**In the shell,** without a line of code; the exit status is 0 for PASS, 1 for FAIL and 3 for INCONCLUSIVE:

```text
jaxnet check mine.py:RMSNorm --init 4 --inputs 3x4
```

**In pytest,** with a fixture, so that the check runs with every change. [Check gradients in pytest](../pytest.md) has the
options, and [Put it into your CI](../ci.md) a workflow:

```python
def test_rms_norm(crosscheck):
    crosscheck(RMSNorm(np.array([0.5, 1.5, 1.0, 2.0])), (3, 4))
```

**In Jupyter,** as on this page. [In a notebook](../jupyter.md) tells what is shown for each value.

[The guide to the checker](../crosscheck.md) tells what else is compared, such as forward mode, second order, batches
and strides, and [the reference](../api/crosscheck.md) has the functions.

## Exercises

1. Put `.sum` in place of `.mean` in `RMSNorm.backward`. Read the sentence that the report has for it.
2. Multiply by `self.g` after the mean instead of before. Let all elements of `g` be equal: why does it pass, and what does the
   report warn of?
3. Derive and check LayerNorm, which subtracts the mean of each row before it divides. There are now three paths to $y_i$.
4. Add $\varepsilon = 10^{-6}$ under the root, and check at inputs of size $10^{-3}$. Is $\sum_j x_j \, \partial L / \partial x_j$
   still 0?
"""

# %% [markdown] lang="ko"
r"""
계층이 가지고 있는 난수 생성기는 호출할 때마다 복사되므로, 모든 호출이 같은 마스크를 뽑습니다. 여러분의 생성기는 앞으로
나아가지 않습니다.

테스트에서는 INCONCLUSIVE를 "아직 아니다"로 보아야 합니다. 보고서는 PASS일 때만 참이므로 `assert report`는 실패합니다.

## 어디서 검사할까

**셸에서** 코드 한 줄 없이 검사합니다. 종료 상태는 PASS가 0, FAIL이 1, INCONCLUSIVE가 3입니다.

```text
jaxnet check mine.py:RMSNorm --init 4 --inputs 3x4
```

**pytest에서** 픽스처로 검사하면 코드를 고칠 때마다 검사가 실행됩니다. 옵션은 [pytest에서 기울기 검사하기](../pytest.md)에,
워크플로는 [CI에 넣기](../ci.md)에 있습니다.

```python
def test_rms_norm(crosscheck):
    crosscheck(RMSNorm(np.array([0.5, 1.5, 1.0, 2.0])), (3, 4))
```

**Jupyter에서** 이 글처럼 검사합니다. 값마다 무엇이 보이는지는 [노트북에서 쓰기](../jupyter.md)에 있습니다.

[검사 도구 안내](../crosscheck.md)에는 순방향 모드, 이차 미분, 배치, 스트라이드처럼 그 밖에 무엇을 비교하는지가 있고,
[참조 문서](../api/crosscheck.md)에는 함수 설명이 있습니다.

## 연습 문제

1. `RMSNorm.backward`에서 `.mean` 대신 `.sum`을 써 보세요. 보고서가 무엇이라고 설명하는지 읽어 보세요.
2. `self.g`를 평균 앞이 아니라 뒤에 곱해 보세요. `g`의 원소를 모두 같게 하면 통과합니다. 왜 그럴까요? 보고서는 무엇을
   경고하나요?
3. 나누기 전에 행의 평균을 빼는 LayerNorm을 유도하고 검사해 보세요. 이제 $y_i$로 가는 길은 셋입니다.
4. 제곱근 안에 $\varepsilon = 10^{-6}$을 더하고, 크기가 $10^{-3}$인 입력에서 검사해 보세요.
   $\sum_j x_j \, \partial L / \partial x_j$는 여전히 0일까요?
"""
