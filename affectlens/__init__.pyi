from . import datasets as datasets
from .activations import ActivationStore as ActivationStore
from .activations import capture as capture
from .activations import moments as moments
from .circuits import Circuit as Circuit
from .circuits import find_circuit as find_circuit
from .core import EMOTIONS as EMOTIONS
from .core import TONES as TONES
from .core import AffectLensError as AffectLensError
from .core import Site as Site
from .geometry import Directions as Directions
from .geometry import directions as directions
from .geometry import stream_directions as stream_directions
from .models import LanguageModel as LanguageModel
from .models import load_model as load_model
from .pipeline import RunConfig as RunConfig
from .pipeline import run as run
from .probes import Sweep as Sweep
from .probes import sweep as sweep
from .steering import SteeringPack as SteeringPack
from .steering import SteeringSpec as SteeringSpec

__version__: str
