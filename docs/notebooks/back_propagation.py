# %% [markdown] lang="en"
r"""
# Back propagation, three ways

A first formula, $y = x W + b$, and

$$\frac{\partial L}{\partial W} = x^\top \frac{\partial L}{\partial y}$$
"""

# %% [markdown] lang="ko"
r"""
# 역전파, 세 가지 방법

첫 번째 수식 $y = x W + b$ 입니다.

$$\frac{\partial L}{\partial W} = x^\top \frac{\partial L}{\partial y}$$
"""

# %%
import matplotlib.pyplot as plt
import numpy as np

print(np.arange(3))

# %% alt_en="A line" alt_ko="직선"
figure, axes = plt.subplots()
axes.plot([0, 1])
plt.show()

# %% tags=["raises-exception"]
raise AssertionError("shown")
