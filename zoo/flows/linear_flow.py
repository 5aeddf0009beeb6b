"""Linear flow: one invertible matrix.

    x = A z + b,    p(x) = p_Z(A⁻¹ (x - b)) / |det A|.

With a Gaussian prior it is a Gaussian of full covariance A Aᵀ; with a logistic one, independent component
analysis.

References:
    | A maximum likelihood approach to blind identification (Pham, Garat & Jutten, 1992), for the latter
    | Glow: Generative flow with invertible 1×1 convolutions (Kingma & Dhariwal, 2018), section 3.2 for LU
"""

from zoo.flows.flow import Flow, Prior
from zoo.flows.linear import LULinear
from zoo.model import checked_shape


class LinearFlow(Flow):
    """A matrix in triangular factors, and a shift.

    The factors are those of A⁻¹, which scoring multiplies with: A itself would be learnt at a crawl.

    Args:
        event_shape: Shape of one item.
        num_levels: K, for integer entries 0 … K - 1; None for real ones.
        offset: Of the logit between levels and the real line; None scales them only.
        prior: ``"gaussian"`` or ``"logistic"``.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> LinearFlow((8, 8), num_levels=17).sample(3).shape
        torch.Size([3, 8, 8])
    """

    recipes = {
        "digits-levels": {
            "model": {"num_levels": 17, "offset": 0.01, "prior": "logistic"},
            "objective": "elbo",
            "fit": {"epochs": 100, "batch_size": 50, "lr": 1e-2, "schedule": "cosine", "clip_norm": 50.0},
            "particles": 10,
            "bound": "elbo",
        },
    }

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        num_levels: int | None = None,
        offset: float | None = None,
        prior: Prior = "gaussian",
    ) -> None:
        transform = LULinear(checked_shape(event_shape).numel()).inv
        super().__init__(event_shape, transform, num_levels=num_levels, offset=offset, prior=prior)
