"""What a person is shown in JupyterLab beyond the cells' own results; the only importer of ipywidgets and IPython.

Each control lies in an output that has a static twin: all that is left of it once it is answered, and all that a viewer
or paper shows. An answer comes in a thread of its own, maybe while a cell runs.
"""
