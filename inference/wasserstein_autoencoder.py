"""The Wasserstein autoencoder: codes matched to the prior by their maximum mean discrepancy."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from inference.aggregate_posterior import AggregatePosterior
from inference.mmd import KERNELS, InverseMultiquadratic, KernelFunction, mmd2, squared_distances
from inference.program import Batch, Structure, arguments, forked_rng

SCALES = tuple(math.sqrt(factor) for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10))
"""What an inverse multiquadratic kernel takes the mean over, in units of the prior's own distances."""

PRIOR_DRAWS = 1000
"""Codes that are drawn from the prior, about, to measure the distances between them."""


class WassersteinAutoencoder(AggregatePosterior):
    """Reconstruction, and the aggregate posterior matched to the prior by their maximum mean discrepancy.

        loss = E_q(z | x)[-log p(x | z)] + λ · MMD²(q(z), p(z)),    q(z) = 1/n Σ_i q(z | x_i).

    The first term is in nats per item. MMD² has no unit, it lies between 0 and 2 (its unbiased estimate just
    below 0 at times), and λ is the nats that it is worth; the loss is no bound of the likelihood. Under a
    deterministic decoder that pays ‖x - g(z)‖², the sum is a relaxed Wasserstein distance between the data
    and what the model draws. The codes of a batch are held against as many draws from the model's own prior
    site; a batch of a single item has no such term.

    Nothing keeps q(z | x) wide, and it narrows down, as far as many codes together still fill the prior: a
    likelihood by importance sampling with such a guide is a bound, and may be a loose one.

    Pyro's ``Trace_MMD`` (1.9.2) has the same loss, summed over items and with the biased estimate, only where
    ``num_particles=1`` and ``vectorize_particles=True``: theirs / n = ours + λ/n (2 - U_qq - U_pp), λ n being
    its ``mmd_scale`` and U the mean kernel between distinct codes; with n = 50, λ = 100 and a true MMD² of 0
    the surplus is some 2 nats, and its gradient pushes codes together. With more particles, or without
    vectorising, it takes the codes of all items for one long vector, so that q(z | x) of each item is matched
    to the prior; a kernel built with ``input_dim`` = d then reads the first item's code alone. Nor does it
    refuse a latent site that the guide lacks, and it freezes the kernel that it is given.

    Args:
        model: An object with ``.model`` and ``.guide``, or a Pyro program.
        guide: The guide, deterministic or not, where ``model`` is a program.
        site: Name of the latent site that is the code.
        weight: λ.
        kernel: ``"inverse-multiquadratic"``, the mean over seven scales around the distance between prior
            codes, ``"rbf"``, at that distance, or any kernel of `inference.mmd2`.

    Raises:
        ValueError: If ``weight`` is not above 0 or ``kernel`` none of them; at the first batch, if the code
            is no latent site with a value for each item, or a latent site cannot be drawn with a gradient.

    References:
        | Wasserstein Auto-Encoders (Tolstikhin, Bousquet, Gelly & Schölkopf, 2018), equation 4, algorithm 2
        | https://arxiv.org/abs/1711.01558
        | InfoVAE: Balancing Learning and Inference in Variational Autoencoders (Zhao, Song & Ermon, 2019)

    Example:
        >>> import inference, zoo
        >>> data = zoo.load("digits")
        >>> wae = WassersteinAutoencoder(zoo.VAE(data.event_shape, latent_dim=2), weight=50.0)
        >>> result = inference.fit(wae, data.train, epochs=2, progress=False)
        >>> result.history[1]["train"] < result.history[0]["train"]
        True
    """

    distance: Tensor

    def __init__(
        self,
        model: Any,
        guide: Callable[..., Any] | None = None,
        *,
        site: str = "z",
        weight: float = 10.0,
        kernel: str | KernelFunction = "inverse-multiquadratic",
    ) -> None:
        super().__init__(model, guide, site=site, weight=weight)
        if not callable(kernel) and kernel not in KERNELS:
            raise ValueError(f"kernel must be a function or one of {', '.join(KERNELS)}, got {kernel!r}")
        self.kernel = kernel
        self.register_buffer("distance", torch.zeros((), dtype=torch.float64))

    @override
    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, kernel={self.kernel}"

    @override
    def prepare(self, batch: Batch) -> Structure:
        structure = super().prepare(batch)
        if self.distance == 0 and not callable(self.kernel):
            runs = -(-PRIOR_DRAWS // len(arguments(batch)[0]))
            with forked_rng(), torch.no_grad():
                codes = torch.cat([self.prior_codes(batch) for _ in range(runs)])
            self.distance.copy_(squared_distances(codes, codes).mean().sqrt())
            if not self.distance > 0:
                raise ValueError(f"the prior of {self.site} must have a width, got draws that coincide")
        return structure

    @override
    def forward(self, batch: Batch) -> Tensor:
        codes = self.codes(batch)
        if len(codes.encoded) < 2:
            return codes.reconstruction
        return codes.reconstruction + self.weight * mmd2(codes.encoded, codes.prior, self.kernel_function())

    def kernel_function(self) -> KernelFunction:
        """The kernel, its scale fixed by the distances between prior codes; known after `prepare`."""
        if callable(self.kernel):
            return self.kernel
        distance = self.distance.item()
        if self.kernel == "rbf":
            return KERNELS["rbf"](distance)
        return InverseMultiquadratic([distance * scale for scale in SCALES])
