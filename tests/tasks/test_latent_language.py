"""The probit-Pólya language against enumeration, quadrature and scipy, and against a run whose numbers are known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor

from building import rng
from gmbench.metrics.diagonal_gaussian import diagonal_gaussian
from gmbench.metrics.importance_bound import evidence_bound, importance_bound
from gmbench.metrics.latent_information import active_units, kl
from gmbench.metrics.mutual_information import mutual_information
from gmbench.tasks.language.latent_language.language import ONE, ZERO, ProbitPolya
from gmbench.tasks.language.latent_language.probit_beta import grid, log_posterior, matched_gaussians

EOS, PAD = 1, 0


def small(interleaved: bool) -> ProbitPolya:
    """Two blocks of three words."""
    return ProbitPolya(2, 3, interleaved=interleaved, num_latents=3)


def every_sentence(language: ProbitPolya) -> Tensor:
    words = torch.tensor(list(itertools.product((ZERO, ONE), repeat=language.num_words)))
    return torch.cat([words, torch.full_like(words[:, :1], EOS)], 1)


def of_block(language: ProbitPolya, position: int) -> int:
    return position % language.num_blocks if language.interleaved else position // language.block_length


@pytest.mark.parametrize("interleaved", [False, True])
def test_log_prob_is_the_integral_over_latents(interleaved: bool) -> None:
    language = small(interleaved)
    x = every_sentence(language)
    log_p = language.log_prob(x)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)
    # the two blocks are independent, so that the integral is a product of integrals over u = Φ(z), uniform on [0, 1]
    for row, value in zip(x[::5], log_p[::5], strict=True):
        blocks: list[list[int]] = [[], []]
        for position, word in enumerate(row[:-1].tolist()):
            blocks[of_block(language, position)].append(word)
        product = 1.0
        for words in blocks:
            k = words.count(ONE)
            product *= integrate.quad(lambda u, k=k: u**k * (1 - u) ** (3 - k), 0, 1)[0]
        assert float(value) == pytest.approx(math.log(product), abs=1e-9)


@pytest.mark.parametrize("interleaved", [False, True])
def test_token_log_prob_is_the_ratio_of_what_begins_so(interleaved: bool) -> None:
    language = small(interleaved)
    x = every_sentence(language)
    p, by_token = language.log_prob(x).exp(), language.token_log_prob(x)
    for row, each in zip(x[::3], by_token[::3], strict=True):
        begins = [float(p[(x[:, :t] == row[:t]).all(1)].sum()) for t in range(x.shape[1] + 1)]
        expected = [math.log(after / before) for before, after in itertools.pairwise(begins)]
        np.testing.assert_allclose(each.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("interleaved", [False, True])
def test_pseudo_log_prob_is_that_of_one_word_against_the_other(interleaved: bool) -> None:
    language = small(interleaved)
    x = every_sentence(language)
    log_p = language.log_prob(x)
    expected = torch.zeros(len(x), dtype=torch.float64)
    for position in range(6):
        changed = x.clone()
        changed[:, position] = ZERO + ONE - changed[:, position]
        expected += log_p - torch.logaddexp(log_p, language.log_prob(changed))
    torch.testing.assert_close(language.pseudo_log_prob(x), expected)


def test_entropies_are_those_of_all_sentences() -> None:
    language = small(True)
    log_p = language.log_prob(every_sentence(language))
    assert language.entropy == pytest.approx(float(-(log_p.exp() * log_p).sum()), abs=1e-12)
    of_coin = integrate.quad(lambda u: -u * math.log(u) - (1 - u) * math.log1p(-u), 0, 1)[0]
    assert language.conditional_entropy == pytest.approx(6 * of_coin, abs=1e-9)
    assert language.information == language.entropy - language.conditional_entropy > 0


def test_sentences_that_end_early_have_probability_zero() -> None:
    language = small(False)
    x = torch.tensor([[ONE, ONE, EOS, PAD, PAD, PAD, PAD], [EOS, PAD, PAD, PAD, PAD, PAD, PAD]])
    each = language.token_log_prob(x)
    np.testing.assert_allclose(each[0].numpy(), [math.log(1 / 2), math.log(2 / 3), -math.inf, 0, 0, 0, 0])
    assert language.log_prob(x).tolist() == [-math.inf, -math.inf]
    assert language.frequencies(x).tolist() == [[1.0, 0.5], [0.5, 0.5]]
    with pytest.raises(ValueError, match="fewer than 6 words"):
        language.posterior(x)
    with pytest.raises(ValueError, match="shape"):
        language.log_prob(x[:, :5])


@pytest.mark.parametrize("interleaved", [False, True])
def test_samples_follow_log_prob(interleaved: bool) -> None:
    language, num = small(interleaved), 40_000
    x = language.sample(num, rng=rng())
    language.space.validate(x)
    p = language.log_prob(every_sentence(language)).exp().numpy()
    index = ((x[:, :-1] == ONE).long() * 2 ** torch.arange(5, -1, -1)).sum(1)
    counts = index.bincount(minlength=64).numpy()
    assert stats.chisquare(counts, p * num).pvalue > 1e-4
    assert torch.equal(language.sentences(language.blocks(x)), x)
    assert torch.equal(x, language.sample(num, rng=rng()))


@pytest.mark.parametrize("length", [3, 12, 24])
def test_gaussians_have_the_moments_of_the_posterior(length: int) -> None:
    found = matched_gaussians(length)
    total = log_posterior(grid(), length).exp().sum(1) * float(grid()[1] - grid()[0])
    np.testing.assert_allclose(total.numpy(), 1.0, atol=1e-12)
    for k in (0, 1, length // 2, length):
        u = stats.beta(k + 1, length - k + 1)
        mean = u.expect(special.ndtri)
        np.testing.assert_allclose(float(found.mean[k]), mean, atol=1e-6)
        variance = u.expect(lambda v: special.ndtri(v) ** 2) - mean**2
        np.testing.assert_allclose(float(found.std[k]), math.sqrt(variance), atol=1e-6)
        q = stats.norm(mean, float(found.std[k]))
        # E_q log q - log p(z | k), of which the latter is that of u and the derivative of u = Φ(z)
        gap = -q.entropy() - q.expect(lambda z, u=u: u.logpdf(special.ndtr(z)) + stats.norm.logpdf(z), lb=-8, ub=8)
        np.testing.assert_allclose(float(found.gap[k]), gap, atol=1e-6)
    assert float(found.gap.min()) > 0


def test_latents_are_those_of_the_blocks() -> None:
    language = ProbitPolya(4, 12, interleaved=True, num_latents=16)
    x = language.sample(500, rng=rng(1))
    q = diagonal_gaussian("q", language.posterior(x))
    ones = torch.stack([(x[:, j:48:4] == ONE).sum(1) for j in range(4)], 1)
    assert torch.equal(q.mean[:, :4], language.gaussians.mean[ones])
    assert not bool(q.mean[:, 4:].any()) and bool((q.std[:, 4:] == 1).all())
    z = torch.randn(3, 500, 16, generator=rng(2), dtype=torch.float64)
    p = torch.special.ndtr(z[..., :4]).numpy()
    expected = stats.binom.logpmf(ones.numpy(), 12, p) - np.log(special.comb(12, ones.numpy()))
    np.testing.assert_allclose(language.log_likelihood(x, z).numpy(), expected.sum(-1), atol=1e-9)
    # no sentence is likelier than the decoded one
    assert bool((language.log_likelihood(language.decode(z[0]), z[:1]) >= language.log_likelihood(x, z[:1])).all())
    assert torch.equal(language.reconstruct(x), language.decode(language.encode(x)))
    with pytest.raises(ValueError, match="as many latents"):
        ProbitPolya(4, 12, interleaved=True, num_latents=3)


def test_the_known_run_comes_out_again() -> None:
    """A = 8, T = 24 and 32 latents: numbers of the same language from an independent program."""
    language = ProbitPolya(8, 24, interleaved=False, num_latents=32)
    assert language.entropy == pytest.approx(105.828, abs=5e-4)
    assert math.exp(language.entropy / language.num_words) == pytest.approx(1.7353, abs=5e-5)
    assert language.information == pytest.approx(9.8282, abs=5e-5)
    assert language.evidence_gap == pytest.approx(0.0269, abs=5e-5)
    mean, std, _ = language.gaussians
    expected_kl = 8 * float(((mean.square() + std.square() - 1) / 2 - std.log()).mean())
    assert expected_kl == pytest.approx(9.804, abs=2e-3)
    # I_q = E KL - KL(q(z) ‖ p(z)), the latter of the mixture of all k
    z = grid()
    mixture = torch.distributions.Normal(mean[:, None], std[:, None]).log_prob(z).logsumexp(0) - math.log(25)
    prior = -z.square() / 2 - math.log(2 * math.pi) / 2
    marginal_kl = float((mixture.exp() * (mixture - prior)).sum() * (z[1] - z[0]))
    assert expected_kl - 8 * marginal_kl == pytest.approx(9.7986, abs=5e-5)
    x = language.sample(2000, rng=rng(3))
    found = kl(language.posterior(x), language.prior())
    assert found.stderr is not None and abs(found.value - expected_kl) < 4 * found.stderr
    units = active_units(language.posterior(x).mean)
    assert units.value == 8 and units.note.startswith("of 32")
    log_p = language.log_prob(x)
    assert abs(float(log_p.mean()) + language.entropy) < 4 * float(log_p.std()) / 2000**0.5


def test_bounds_close_in_on_the_exact_log_prob() -> None:
    language = ProbitPolya(8, 24, interleaved=True, num_latents=32)
    x = language.sample(600, rng=rng(4))
    parts = (language.prior(), language.posterior, language.log_likelihood, x)
    log_p, draw = language.log_prob(x), rng(5)
    gaps = [log_p - importance_bound(*parts, num_importance=k, rng=draw) for k in (1, 5, 50, 500)]
    means, errors = zip(*((float(gap.mean()), float(gap.std()) / 600**0.5) for gap in gaps), strict=True)
    assert abs(means[0] - language.evidence_gap) < 4 * errors[0]
    for (low, high), (of_low, of_high) in zip(itertools.pairwise(means), itertools.pairwise(errors), strict=True):
        assert high < low + 3 * math.hypot(of_low, of_high)
    assert all(mean > -3 * error for mean, error in zip(means, errors, strict=True)) and abs(means[3]) < 0.002
    elbo = log_p - evidence_bound(*parts, num_draws=20, rng=draw).elbo
    assert abs(float(elbo.mean()) - language.evidence_gap) < 4 * float(elbo.std()) / 600**0.5
    # the prior as proposal: a bound that many latents do not rescue
    zero = torch.zeros(32, dtype=torch.float64)
    blind = torch.distributions.Independent(torch.distributions.Normal(zero, zero + 1), 1)
    of_prior = importance_bound(
        blind, lambda rows: blind.expand((len(rows),)), language.log_likelihood, x[:200], num_importance=500, rng=draw
    )
    assert 4.5 < float((log_p[:200] - of_prior).mean()) < 7.5  # 6.0 is known


def test_mutual_information_lies_between_its_bounds_and_saturates() -> None:
    easy, hard = (ProbitPolya(a, t, interleaved=True, num_latents=4 * a) for a, t in ((4, 12), (8, 24)))
    found = mutual_information(easy.posterior(easy.sample(2000, rng=rng(6))), rng=rng(7))
    assert found.lower.stderr is not None and found.upper.stderr is not None and not found.saturated
    assert found.lower.value < easy.information + 4 * found.lower.stderr
    assert found.upper.value > easy.information - 4 * found.upper.stderr
    assert found.upper.value - found.lower.value < 0.15
    found = mutual_information(hard.posterior(hard.sample(1024, rng=rng(8))), rng=rng(9))
    assert found.saturated and 6.6 < found.lower.value < found.log_n < hard.information < found.upper.value
