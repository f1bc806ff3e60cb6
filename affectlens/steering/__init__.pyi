from .pack import SteeringPack as SteeringPack
from .spec import SteeringSpec as SteeringSpec
from .table import SteeringTable as SteeringTable
from .transformers.hooks import generate_steered as generate_steered
from .transformers.hooks import steering as steering
