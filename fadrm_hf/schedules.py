"""Learning rates over a training."""

import math


def cosine(peak: float, step: int, num_steps: int, eta: float = 1.0) -> float:
    """Cosine annealing without warm-up, slowed down by `eta` (Eq. 57 times the peak rate, which it leaves out).

    Args:
        peak: Learning rate at step 0.
        step: From 0 to `num_steps` - 1, in iterations or epochs.
        num_steps: Length of the training.
        eta: 1 anneals to 0; 2 follows the first half of the cosine, down to half of the peak.
    """
    return peak * 0.5 * (1.0 + math.cos(math.pi * step / (num_steps * eta)))
