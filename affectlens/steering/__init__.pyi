from .hooking.steered_passes import generate_steered as generate_steered
from .hooking.steered_passes import steering as steering
from .pack import SteeringPack as SteeringPack
from .spec import SteeringSpec as SteeringSpec
from .table import SteeringTable as SteeringTable
