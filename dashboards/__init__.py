"""The live pages: a Bokeh server that tails the store and never computes science."""
