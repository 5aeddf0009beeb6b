"""The GAN's generator: what it draws, and the gradient that goes through a cut."""

import pytest
import torch

import inference
from zoo import GAN


def test_binary_entries_are_the_logits_cut_at_zero():
    torch.manual_seed(0)
    gan = GAN((2, 3), latent_dim=2, hidden=(5,))
    z = torch.randn(50, 2)
    logits = gan.generator(z).squeeze(0)
    x = gan.g(z)
    assert torch.equal(x, (logits > 0).float()) and 0.1 < x.mean() < 0.9


def test_the_gradient_goes_through_the_cut_as_through_a_sigmoid():
    torch.manual_seed(0)
    gan = GAN((2, 3), latent_dim=2, hidden=(5,)).double()
    z, weight = torch.randn(20, 2, dtype=torch.float64), torch.randn(20, 2, 3, dtype=torch.float64)
    (weight * gan.g(z)).sum().backward()
    ours = [param.grad.clone() for param in gan.parameters()]
    gan.zero_grad()
    (weight * gan.generator(z).squeeze(0).sigmoid()).sum().backward()
    assert all(torch.allclose(one, param.grad) for one, param in zip(ours, gan.parameters(), strict=True))


def test_real_entries_are_as_the_network_gives_them():
    torch.manual_seed(0)
    gan = GAN((3,), latent_dim=2, hidden=(5,), output="real")
    z = torch.randn(4, 2)
    assert torch.equal(gan.g(z), gan.generator(z).squeeze(0))


def test_what_is_sampled_is_g_of_a_standard_code():
    gan = GAN((3,), latent_dim=2, hidden=(5,), output="real")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        z = torch.randn(6, 2)
    assert torch.allclose(gan.sample(6, seed=4), gan.g(z))


def test_particles_on_the_left_of_a_code():
    gan = GAN((2, 3), latent_dim=2, hidden=(5,))
    z = torch.randn(3, 4, 2)
    assert torch.equal(gan.g(z)[1, 2], gan.g(z[1, 2]))


def test_labels_and_levels_are_no_data_for_it():
    gan = GAN((2,), latent_dim=1, hidden=(3,))
    with pytest.raises(ValueError, match=r"expects entries in \{0, 1\}"):
        inference.fit(inference.Adversarial(gan), torch.full((4, 2), 0.5), epochs=1, progress=False)
    with pytest.raises(ValueError, match=r"expects items of shape \(batch, 2\)"):
        inference.fit(inference.Adversarial(gan), torch.zeros(4, 3), epochs=1, progress=False)
