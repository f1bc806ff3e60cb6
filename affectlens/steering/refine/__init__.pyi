from .low_rank import refine_low_rank as refine_low_rank
from .objectives import OBJECTIVES as OBJECTIVES
from .settings import CIRCUIT as CIRCUIT
from .settings import RESIDUAL as RESIDUAL
from .settings import RefineSettings as RefineSettings
from .vectors import refine_circuit as refine_circuit
from .vectors import refine_directions as refine_directions
