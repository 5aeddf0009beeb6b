"""Linear transforms whose determinant is a product: diagonal, and triangular factors.

References:
    | NICE: Non-linear independent components estimation (Dinh, Krueger & Bengio, 2015), section 3.3
    | Glow: Generative flow with invertible 1×1 convolutions (Kingma & Dhariwal, 2018), equation 10
"""

import torch
from torch import Tensor, nn
from torch.linalg import solve_triangular

from zoo.flows.transform import FlowTransform


class DiagonalScaling(FlowTransform):
    """y = s ⊙ x with s = exp(`log_scale`): NICE's scaling layer; log |det| = Σ log s.

    Args:
        event_shape: Shape of one item.

    Example:
        >>> DiagonalScaling((2,)).call_and_log_det(torch.ones(3, 2))[1]
        tensor([0., 0., 0.], grad_fn=<ExpandBackward0>)
    """

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(len(event_shape))
        self.log_scale = nn.Parameter(torch.zeros(tuple(event_shape)))

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The product s ⊙ x, and Σ log s."""
        log_det = self._log_det(x)
        return x * self.log_scale.exp(), log_det

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The quotient y / s, and -Σ log s."""
        log_det = -self._log_det(y)
        return y * (-self.log_scale).exp(), log_det

    def _log_det(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.dim() - self.log_scale.dim()]
        if x.shape != batch + self.log_scale.shape:
            raise ValueError(
                f"DiagonalScaling expects items of shape {tuple(self.log_scale.shape)}, got {tuple(x.shape)}"
            )
        return self.log_scale.sum().expand(batch)


class LULinear(FlowTransform):
    """y = A x + b with A = P L U: a permutation, a unit lower and an upper triangular matrix.

    U has a positive diagonal, exp(`log_diagonal`), so that A is invertible whatever the parameters:
    log |det A| = Σ log U_ii. P stays as it was drawn. It starts as P alone.

    Args:
        num: Length of the vectors.
        permute: Whether P is drawn at random, or the identity.

    Raises:
        ValueError: If ``num`` is below 1.

    Example:
        >>> LULinear(3).call_and_log_det(torch.ones(5, 3))[0].shape
        torch.Size([5, 3])
    """

    def __init__(self, num: int, *, permute: bool = False) -> None:
        super().__init__()
        if num < 1:
            raise ValueError(f"num must be at least 1, got {num}")
        self.register_buffer("permutation", torch.randperm(num) if permute else torch.arange(num))
        self.factors = nn.Parameter(torch.zeros(num, num))  # L below the diagonal, U above it
        self.log_diagonal = nn.Parameter(torch.zeros(num))
        self.bias = nn.Parameter(torch.zeros(num))

    def lower(self) -> Tensor:
        """L."""
        return self.factors.tril(-1) + torch.eye(
            len(self.bias), dtype=self.bias.dtype, device=self.bias.device
        )

    def upper(self) -> Tensor:
        """U."""
        return self.factors.triu(1) + self.log_diagonal.exp().diag()

    def matrix(self) -> Tensor:
        """A."""
        return (self.lower() @ self.upper())[self.permutation]

    def call_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A x + b and Σ log U_ii."""
        log_det = self._log_det(x)
        return x @ self.matrix().T + self.bias, log_det

    def inverse_and_log_det(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """A⁻¹ (y - b), by two triangular systems, and -Σ log U_ii."""
        log_det = -self._log_det(y)
        z = (y - self.bias)[..., self.permutation.argsort()]
        flat = z.flatten(0, -2) if z.dim() > 1 else z.unsqueeze(0)
        # zᵀ = Uᵀ Lᵀ from the right: rows are items.
        flat = solve_triangular(self.lower().T, flat, upper=True, left=False, unitriangular=True)
        flat = solve_triangular(self.upper().T, flat, upper=False, left=False)
        return flat.reshape(z.shape), log_det

    def _log_det(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != self.log_diagonal.shape:
            raise ValueError(f"LULinear expects vectors of {len(self.bias)} entries, got {tuple(x.shape)}")
        return self.log_diagonal.sum().expand(x.shape[:-1])
