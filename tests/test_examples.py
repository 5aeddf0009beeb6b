"""Every example runs as it stands, with fewer epochs."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# File name, and what it prints when it has done its work.
CASES = {
    "annealed_importance_sampling.py": "wrote annealed_importance_sampling.png",
    "bernoulli_mixture.py": "wrote bernoulli_mixture.png",
    "categorical_nade.py": "wrote categorical_nade.png",
    "char_rnn.py": "of 1,000 drawn names occur in training",
    "compare_inference.py": "wrote compare_inference.png",
    "condition_pixels.py": "wrote condition_pixels.png",
    "custom_kernel.py": "wrote custom_kernel.png",
    "custom_model.py": "closed form:",
    "dbm.py": "wrote dbm.png",
    "density_2d.py": "wrote density_2d.png",
    "divergences.py": "wrote divergences.png",
    "em_vs_svi.py": "wrote em_vs_svi.png",
    "full_joint.py": "wrote full_joint.png",
    "fvsbn.py": "wrote fvsbn.png",
    "gan.py": "wrote gan.png",
    "gaussian_mixture.py": "wrote gaussian_mixture.png",
    "gibbs_kernel.py": "wrote gibbs_kernel.png",
    "gradient_estimators.py": "wrote gradient_estimators.png",
    "hierarchical_vae.py": "wrote hierarchical_vae.png",
    "independent.py": "wrote independent.png",
    "linear_flow.py": "wrote linear_flow.png",
    "markov_chain.py": "wrote markov_chain.png",
    "mintnet.py": "wrote mintnet.png",
    "nade.py": "wrote nade.png",
    "nice.py": "wrote nice.png",
    "pixel_rnn.py": "wrote pixel_rnn.png",
    "pixel_cnn.py": "wrote pixel_cnn.png",
    "ppca.py": "wrote ppca.png",
    "rbm.py": "wrote rbm.png",
    "realnvp.py": "wrote realnvp.png",
    "rnade.py": "wrote rnade.png",
    "samplers.py": "wrote samplers.png",
    "supervised_vae.py": "wrote supervised_vae.png",
    "transforms_in_pyro.py": "wrote transforms_in_pyro.png",
    "vae.py": "wrote vae.png",
    "wavenet.py": "wrote wavenet.wav and wavenet.png",
}


@pytest.mark.parametrize("name", CASES)
def test_example_runs(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "1"])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert CASES[name] in capsys.readouterr().out
    for word in CASES[name].split():
        if word.endswith(".png"):
            assert (tmp_path / word).read_bytes().startswith(b"\x89PNG")


def test_every_example_is_here():
    assert sorted(CASES) == sorted(path.name for path in EXAMPLES.glob("*.py"))
