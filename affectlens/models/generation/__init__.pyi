from .generation import GenerationSettings as GenerationSettings
from .generation import encode_prompt as encode_prompt
from .generation import generate as generate
from .generation import generate_ids as generate_ids
