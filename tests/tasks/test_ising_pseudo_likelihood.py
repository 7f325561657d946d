from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from gmbench.tasks.discrete.ising.lattice import adjacency, couplings
from gmbench.tasks.discrete.ising.pseudo_likelihood import (
    choose_lambda,
    fit_dense,
    fit_l1,
    fit_on_support,
    fit_tied,
    l1_path,
    pseudo_loss,
    support_then_refit,
)
from gmbench.tasks.discrete.ising.samples import exact_samples


def neg_log_rmse(estimate: torch.Tensor, J: torch.Tensor) -> float:
    return -0.5 * math.log(float((estimate - J).square().mean()))


def data(side: int, sigma: float, num: int, seed: int = 0) -> torch.Tensor:
    return exact_samples(side, sigma, num, rng=torch.Generator().manual_seed(seed))


def pair_data(num_same: int, num: int) -> torch.Tensor:
    """Two sites that agree in `num_same` of `num` states."""
    return torch.tensor([[1.0, 1.0]] * num_same + [[0.0, 1.0]] * (num - num_same))


def as_logistic_regression(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Rows (state, site), one column an edge: label s_i, feature of J_ij = 4 s_j; the joint symmetric problem."""
    s = (2 * x - 1).double().numpy()
    num, sites = s.shape
    edges = [(i, j) for i in range(sites) for j in range(i + 1, sites)]
    features = np.zeros((num, sites, len(edges)))
    for e, (i, j) in enumerate(edges):
        features[:, i, e] = 4 * s[:, j]
        features[:, j, e] = 4 * s[:, i]
    return features.reshape(-1, len(edges)), s.reshape(-1)


def upper(J: torch.Tensor) -> np.ndarray:
    return J[tuple(torch.triu_indices(len(J), len(J), 1))].numpy()


def test_loss_is_minus_the_sum_of_log_conditionals():
    x = data(3, 0.2, 7)
    J = couplings(3, 0.13)
    total = 0.0
    for state in x:
        for i in range(9):
            other = state.clone()
            other[i] = 1 - other[i]
            s, t = (2 * y.double() - 1 for y in (state, other))
            total += math.log(1 + math.exp(float(t @ J @ t - s @ J @ s)))
    assert pseudo_loss(x, J) == pytest.approx(total / 7, abs=1e-12)


def test_two_sites_have_a_closed_form():
    x = pair_data(800, 1000)  # mean of s_1 s_2 = .6
    expected = math.atanh(0.6) / 2
    for J in (fit_dense(x), fit_tied(x, torch.tensor([[0.0, 1.0], [1.0, 0.0]])), fit_l1(x, 0.0, tol=1e-9)):
        torch.testing.assert_close(J, torch.tensor([[0, expected], [expected, 0]]).double(), atol=2e-6, rtol=0)
    # with the penalty on both entries of J: tanh 2J = .6 - lam / 2
    assert float(fit_l1(x, 0.2, tol=1e-9)[0, 1]) == pytest.approx(math.atanh(0.5) / 2, abs=1e-6)
    assert float(fit_l1(x, 1.21)[0, 1]) == 0.0
    assert float(fit_l1(x, 1.19)[0, 1]) > 0.0


def test_dense_and_l1_against_scikit_learn():
    rng = torch.Generator().manual_seed(1)
    x = torch.bernoulli(torch.full((400, 5), 0.5), generator=rng)
    x[:250, 1] = x[:250, 0]
    x[:220, 3] = 1 - x[:220, 2]
    features, labels = as_logistic_regression(x)
    dense = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000).fit(features, labels)
    np.testing.assert_allclose(upper(fit_dense(x)), dense.coef_[0], atol=1e-5)
    lam = 0.3
    sparse = LogisticRegression(
        C=1 / (2 * lam * len(x)), l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-10, max_iter=5000
    ).fit(features, labels)
    ours = upper(fit_l1(x, lam, tol=1e-8))
    np.testing.assert_allclose(ours, sparse.coef_[0], atol=1e-5)
    assert 0 < (ours == 0).sum() < len(ours)


@pytest.mark.parametrize("sigma", [0.2, -0.2])
def test_l1_meets_the_optimality_conditions(sigma):
    x = data(5, sigma, 500)
    lam = 0.1
    J = fit_l1(x, lam, tol=1e-6).requires_grad_()
    s = (2 * x - 1).double()
    loss = torch.nn.functional.softplus(-4 * s * (s @ ((J + J.mT) / 2))).sum() / len(x)
    gradient = torch.autograd.grad(loss, J)[0]
    J = J.detach()
    off = ~torch.eye(25, dtype=torch.bool)
    zero = (J == 0) & off
    assert zero.any()
    assert float(gradient[zero].abs().max()) <= lam + 1e-5
    torch.testing.assert_close(gradient[~zero & off], -lam * J[~zero & off].sign(), atol=1e-5, rtol=0)


def test_shape_and_support_of_the_results():
    x = data(4, 0.2, 300)
    A = adjacency(4)
    for J in (fit_dense(x), fit_l1(x, 0.1), fit_on_support(x, A), fit_tied(x, A), support_then_refit(x)):
        assert J.dtype == torch.float64
        assert torch.equal(J, J.mT)
        assert J.diagonal().eq(0).all()
    assert torch.equal(fit_on_support(x, A) != 0, A != 0)
    assert torch.equal(fit_on_support(x, torch.zeros(16, 16)), torch.zeros(16, 16).double())
    # nested models: more freedom, lower loss
    losses = [pseudo_loss(x, J) for J in (fit_dense(x), fit_on_support(x, A), fit_tied(x, A), torch.zeros(16, 16))]
    assert losses == sorted(losses)
    restarted = fit_on_support(x, A, start=fit_l1(x, 0.1))
    torch.testing.assert_close(restarted, fit_on_support(x, A), atol=1e-5, rtol=0)


def test_path_is_sorted_and_grows():
    x = data(4, 0.2, 300)
    path = l1_path(x, (0.05, 0.4, 0.15))
    assert [lam for lam, _ in path] == [0.4, 0.15, 0.05]
    losses = [pseudo_loss(x, J) for _, J in path]
    assert losses == sorted(losses, reverse=True)
    torch.testing.assert_close(path[-1][1], fit_l1(x, 0.05), atol=1e-4, rtol=0)


def test_choose_lambda_uses_the_last_fifth_and_any_learner():
    x = data(4, 0.2, 500)
    lams = (0.5, 0.1, 0.01)
    losses = {lam: pseudo_loss(x[400:], fit_l1(x[:400], lam)) for lam in lams}
    assert choose_lambda(x, lams) == min(losses, key=lambda lam: losses[lam])
    seen = []

    def learner(train: torch.Tensor, lam: float) -> torch.Tensor:
        seen.append(len(train))
        return couplings(4, 0.2 if lam == 0.5 else -0.2)

    assert choose_lambda(x, lams, fit=learner) == 0.5
    assert seen == [400] * 3


def test_support_is_recovered_or_left_empty():
    x = data(5, 0.15, 3000)
    J = support_then_refit(x)
    assert torch.equal(J != 0, adjacency(5) != 0)
    coins = torch.bernoulli(torch.full((500, 25), 0.5), generator=torch.Generator().manual_seed(1))
    assert support_then_refit(coins).eq(0).all()
    ordered = data(6, 0.6, 200)  # every pair agrees: the path proposes nothing sparse
    assert support_then_refit(ordered, (0.04,)).shape == (36, 36)


def test_constant_data_give_the_bound_and_no_infinity():
    x = torch.ones(50, 4)
    strongest = 1 - torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(fit_dense(x[:, :2]), strongest[:2, :2])
    for J in (fit_dense(x), fit_tied(x, strongest), fit_l1(x, 0.01)):
        assert 0.3 < float(J.max()) <= 1.0


@pytest.mark.parametrize("sigma", [0.2, -0.1])
def test_tied_recovers_the_coupling(sigma):
    num = 4000
    J = fit_tied(data(6, sigma, num), adjacency(6))
    assert float(J[0, 1]) == pytest.approx(sigma, abs=0.01)


def test_ladder_of_the_default_variant():
    """Floors and reference rows of 10 x 10, sigma .1, N = 2000; spread over data sets about .05."""
    J = couplings(10, 0.1)
    x = data(10, 0.1, 2000)
    assert neg_log_rmse(torch.zeros(100, 100), J) == pytest.approx(3.912, abs=1e-3)
    assert neg_log_rmse(fit_dense(x), J) == pytest.approx(4.26, abs=0.04)
    assert neg_log_rmse(fit_l1(x, choose_lambda(x)), J) == pytest.approx(5.3, abs=0.12)
    assert neg_log_rmse(support_then_refit(x), J) == pytest.approx(6.06, abs=0.13)
    assert neg_log_rmse(fit_on_support(x, J != 0), J) == pytest.approx(6.07, abs=0.1)
    assert neg_log_rmse(fit_tied(x, adjacency(10)), J) > 7.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "sigma", "dense", "refit", "oracle"),
    [(10, 0.2, 3.52, 5.47, 5.72), (9, -0.1, 4.27, 5.95, 5.95), (9, -0.2, 3.72, 5.60, 5.66)],
)
def test_ladder_of_other_variants(side, sigma, dense, refit, oracle):
    J = couplings(side, sigma)
    x = data(side, sigma, 2000)
    assert neg_log_rmse(fit_dense(x), J) == pytest.approx(dense, abs=0.08)
    assert neg_log_rmse(support_then_refit(x), J) == pytest.approx(refit, abs=0.2)
    assert neg_log_rmse(fit_on_support(x, J != 0), J) == pytest.approx(oracle, abs=0.15)
