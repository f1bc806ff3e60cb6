from .reading import ColouredText as ColouredText
from .reading import read_text as read_text
from .widget import play as play
