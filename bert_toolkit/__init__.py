"""What the stages of bert-toolkit share; each module holds one idea and can be imported alone.

Importing this package imports neither TensorFlow nor any of the modules below it.
"""

__version__ = "0.1.0"
