"""The headline figures of the VAE and the supervised VAE on the embedded digits, by their recipes."""

import pytest

from tests.figures.recipes import recorded, run

pytestmark = pytest.mark.figures


def test_vae_on_digits(trained_on_digits, record_result):
    metrics = trained_on_digits("vae")
    record_result("vae-digits", metrics)
    assert metrics["test"]["particles"] == 1000
    assert metrics["test"]["nats_per_item"] <= 16.95
    # The code is a tenth as long as the image; the probe on raw pixels stands beside it in the table.
    assert metrics["probe"]["features"] >= 0.85
    assert metrics["probe"]["raw"] >= 0.85


def test_supervised_vae_with_all_labels(trained_on_digits, record_result):
    metrics = trained_on_digits("supervised-vae")
    record_result("supervised-vae-digits", metrics)
    assert metrics["accuracy"] >= 0.96
    assert metrics["generated_as_asked"]["share"] >= 0.95
    assert metrics["generated_as_asked"]["judge_accuracy"] >= 0.95


def test_supervised_vae_with_100_labels(tmp_path, record_result):
    metrics = run("supervised-vae --data digits --labels 100", tmp_path / "run")
    record_result("supervised-vae-digits-100", metrics)
    assert metrics["accuracy"] >= metrics["accuracy_classifier_alone"] + 0.03


def test_mnist_results_reach_the_published_range():
    """The long runs' own records: what they reached is in results/, with the command that reached it."""
    vae, iwae = recorded("vae-mnist"), recorded("iwae-mnist")
    for result in (vae, iwae):
        assert result["finished"]
        assert result["test"]["items"] == 10_000
        assert result["test"]["particles"] == 5000
    assert vae["seconds"] <= 3600
    assert vae["test"]["nats_per_item"] <= 88.0
    assert iwae["parameters"] == vae["parameters"]
    assert iwae["test"]["nats_per_item"] <= vae["test"]["nats_per_item"] - 1.0


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


def test_memory_is_flat_over_5000_steps():
    import torch

    import inference
    import zoo

    objective = inference.ELBO(zoo.VAE((784,), latent_dim=20, hidden=(400,)))
    x = torch.bernoulli(torch.rand(10_000, 784))
    pages = []
    for epochs in (10, 50):  # 1,000 steps to warm up, then 5,000
        inference.fit(objective, x, epochs=epochs, batch_size=100, progress=False)
        pages.append(resident_bytes())
    assert pages[1] <= 1.01 * pages[0]
