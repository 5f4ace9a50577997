"""The integer of each code of four bits in ggml's types IQ4_NL and IQ4_XS."""

import numpy as np

IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
