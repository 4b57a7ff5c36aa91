"""Training: ``fit`` and its loop, the only place that drives Accelerate."""

from .fit import Existing, FitResult, fit, plan_run
from .scoring import score_model

__all__ = ["Existing", "FitResult", "fit", "plan_run", "score_model"]
